# The walk by the HTTP clients of Perl: `walk.pl LIBRARY URL EMAIL` (README.md).
use strict;
use warnings;
use HTTP::Tiny;

my ($library, $url, $email) = @ARGV;
my $sync = "/api/client/sync";
my $rows = join ", ", map { qq({"id": "r$_", "name": "Row $_"}) } 0 .. 2;
my $push = qq({"changes": {"end_user": [$rows]}});
my $pull = qq({"cursor": null, "entityTypes": ["end_user"]});
my $person = qq({"firstName": "Asha", "lastName": "Rao", "email": "$email", "password": "password123"});

my $tiny = HTTP::Tiny->new(keep_alive => 1, timeout => 60);
my $lwp;
if ($library eq "LWP") {
    require LWP::UserAgent;
    $lwp = LWP::UserAgent->new(keep_alive => 1, timeout => 60);
}

sub send_by_tiny {
    my ($path, $token, $type, $body) = @_;
    my %headers = ("Authorization" => "Bearer $token", "Content-Type" => $type);
    my $answer = $tiny->post($url . $path, { headers => \%headers, content => $body });
    return ($answer->{status}, $answer->{content});
}

sub send_by_lwp {
    my ($path, $token, $type, $body) = @_;
    my $answer = $lwp->post($url . $path, "Authorization" => "Bearer $token", "Content-Type" => $type, Content => $body);
    return ($answer->code, $answer->decoded_content);
}

sub step {
    my ($name, $path, $body, $token, $type) = @_;
    my @call = ($path, $token // "", $type // "application/json", $body);
    my ($status, $text) = $library eq "LWP" ? send_by_lwp(@call) : send_by_tiny(@call);
    my $found = () = $text =~ /"name":/g;
    print $name =~ /^(pull|again)$/ ? "$name $status $found\n" : "$name $status\n";
    return $text;
}

step("register", "/api/customers/register", $person);
my ($token) = step("login", "/api/customers/login", $person) =~ /"token":"([^"]*)"/;
step("push", "$sync/push", $push, $token);
step("pull", "$sync/pull", $pull, $token);
step("unauthorized", "$sync/push", " " x (5 << 20), "none");
step("too_large", "$sync/push", " " x (20 << 20), $token);
step("unsupported", "$sync/push", $push, $token, "text/plain");
step("again", "$sync/pull", $pull, $token);
