# The walk by Ruby's Net::HTTP: `walk.rb URL EMAIL` (README.md).
require "json"
require "net/http"

address = URI(ARGV[0])
email = ARGV[1]
sync = "/api/client/sync"
push = JSON.dump({ changes: { end_user: (0..2).map { |n| { id: "r#{n}", name: "Row #{n}" } } } })
pull = JSON.dump({ cursor: nil, entityTypes: ["end_user"] })
person = JSON.dump({ firstName: "Asha", lastName: "Rao", email: email, password: "password123" })

Net::HTTP.start(address.host, address.port, read_timeout: 60) do |connection|
  step = lambda do |name, path, body, token = "", type = "application/json"|
    answer = connection.post(path, body, { "Content-Type" => type, "Authorization" => "Bearer #{token}" })
    rows = %w[pull again].include?(name) ? " #{JSON.parse(answer.body)['data']['end_user'].length}" : ""
    puts "#{name} #{answer.code}#{rows}"
    answer.body
  end
  step.call("register", "/api/customers/register", person)
  token = JSON.parse(step.call("login", "/api/customers/login", person))["data"]["token"]
  step.call("push", "#{sync}/push", push, token)
  step.call("pull", "#{sync}/pull", pull, token)
  step.call("unauthorized", "#{sync}/push", " " * (5 << 20), "none")
  step.call("too_large", "#{sync}/push", " " * (20 << 20), token)
  step.call("unsupported", "#{sync}/push", push, token, "text/plain")
  step.call("again", "#{sync}/pull", pull, token)
end
