<?php
// The walk by the HTTP clients of PHP: `walk.php LIBRARY URL EMAIL` (README.md).
[, $library, $url, $email] = $argv;
$handle = $library === "curl" ? curl_init() : null;

function by_curl(string $address, array $headers, string $body): array
{
    global $handle;
    curl_setopt_array($handle, [
        CURLOPT_URL => $address, CURLOPT_POSTFIELDS => $body, CURLOPT_HTTPHEADER => $headers,
        CURLOPT_RETURNTRANSFER => true, CURLOPT_ENCODING => "", CURLOPT_TIMEOUT => 60,
    ]);
    $text = curl_exec($handle);
    return [curl_getinfo($handle, CURLINFO_RESPONSE_CODE), $text === false ? curl_error($handle) : $text];
}

// The stream wrapper speaks HTTP/1.0 or 1.1 and closes each connection.
function by_stream(string $address, array $headers, string $body): array
{
    $options = ["method" => "POST", "header" => $headers, "content" => $body, "ignore_errors" => true, "timeout" => 60];
    $text = file_get_contents($address, false, stream_context_create(["http" => $options]));
    return [explode(" ", $http_response_header[0] ?? "none 0")[1], $text];
}

function step(string $name, string $path, $body, string $token = "", string $type = "application/json"): string
{
    global $library, $url;
    $headers = ["Content-Type: $type", "Authorization: Bearer $token"];
    $content = is_string($body) ? $body : json_encode($body);
    [$status, $text] = ("by_$library")($url . $path, $headers, $content);
    $rows = in_array($name, ["pull", "again"]) ? " " . count(json_decode($text, true)["data"]["end_user"]) : "";
    echo "$name $status$rows\n";
    return $text;
}

$sync = "/api/client/sync";
$push = ["changes" => ["end_user" => array_map(fn($n) => ["id" => "r$n", "name" => "Row $n"], range(0, 2))]];
$pull = ["cursor" => null, "entityTypes" => ["end_user"]];
$person = ["firstName" => "Asha", "lastName" => "Rao", "email" => $email, "password" => "password123"];
step("register", "/api/customers/register", $person);
$token = json_decode(step("login", "/api/customers/login", $person), true)["data"]["token"];
step("push", "$sync/push", $push, $token);
step("pull", "$sync/pull", $pull, $token);
step("unauthorized", "$sync/push", str_repeat(" ", 5 << 20), "none");
step("too_large", "$sync/push", str_repeat(" ", 20 << 20), $token);
step("unsupported", "$sync/push", $push, $token, "text/plain");
step("again", "$sync/pull", $pull, $token);
