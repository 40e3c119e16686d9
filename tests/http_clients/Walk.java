// The walk by the HTTP clients of Java: `java Walk.java LIBRARY URL EMAIL` (README.md).
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

class Walk {
    static final String SYNC = "/api/client/sync";
    static final String PUSH = "{\"changes\": {\"end_user\": [{\"id\": \"r0\", \"name\": \"Row 0\"},"
        + " {\"id\": \"r1\", \"name\": \"Row 1\"}, {\"id\": \"r2\", \"name\": \"Row 2\"}]}}";
    static final String PULL = "{\"cursor\": null, \"entityTypes\": [\"end_user\"]}";
    static final HttpClient CLIENT = HttpClient.newHttpClient();
    static String library, url;

    record Answer(int status, String text) {}

    static Answer byHttpClient(String path, String body, String token, String type) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(url + path)).header("Content-Type", type)
            .header("Authorization", "Bearer " + token).POST(HttpRequest.BodyPublishers.ofString(body)).build();
        var answer = CLIENT.send(request, BodyHandlers.ofString());
        return new Answer(answer.statusCode(), answer.body());
    }

    static Answer byUrlConnection(String path, String body, String token, String type) throws Exception {
        var connection = (HttpURLConnection) URI.create(url + path).toURL().openConnection();
        connection.setRequestProperty("Content-Type", type);
        connection.setRequestProperty("Authorization", "Bearer " + token);
        connection.setDoOutput(true);
        try (OutputStream out = connection.getOutputStream()) {
            out.write(body.getBytes(StandardCharsets.UTF_8));
        }
        int status = connection.getResponseCode();
        try (InputStream in = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
            return new Answer(status, new String(in.readAllBytes(), StandardCharsets.UTF_8));
        }
    }

    static String step(String name, String path, String body, String token) throws Exception {
        String type = name.equals("unsupported") ? "text/plain" : "application/json";
        Answer answer = library.equals("HttpClient")
            ? byHttpClient(path, body, token, type) : byUrlConnection(path, body, token, type);
        boolean rows = name.equals("pull") || name.equals("again");
        System.out.println(name + " " + answer.status() + (rows ? " " + count(answer.text()) : ""));
        return answer.text();
    }

    static long count(String text) {
        return Pattern.compile("\"name\":").matcher(text).results().count();
    }

    public static void main(String[] arguments) throws Exception {
        library = arguments[0];
        url = arguments[1];
        String person = "{\"firstName\": \"Asha\", \"lastName\": \"Rao\", \"email\": \"" + arguments[2]
            + "\", \"password\": \"password123\"}";
        step("register", "/api/customers/register", person, "");
        Matcher login = Pattern.compile("\"token\":\"([^\"]*)\"").matcher(step("login", "/api/customers/login", person, ""));
        String token = login.find() ? login.group(1) : "";
        step("push", SYNC + "/push", PUSH, token);
        step("pull", SYNC + "/pull", PULL, token);
        step("unauthorized", SYNC + "/push", " ".repeat(5 << 20), "none");
        step("too_large", SYNC + "/push", " ".repeat(20 << 20), token);
        step("unsupported", SYNC + "/push", PUSH, token);
        step("again", SYNC + "/pull", PULL, token);
    }
}
