// The walk by the HTTP clients of Node: `walk.mjs LIBRARY URL EMAIL` (README.md).
import http from "node:http";

const [library, url, email] = process.argv.slice(2);
const SYNC = "/api/client/sync";
const PUSH = { changes: { end_user: [0, 1, 2].map((n) => ({ id: `r${n}`, name: `Row ${n}` })) } };
const PULL = { cursor: null, entityTypes: ["end_user"] };

const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

const LIBRARIES = {
  fetch: async () => async (path, headers, body) => {
    const answer = await fetch(url + path, { method: "POST", headers, body });
    return [answer.status, await answer.text()];
  },
  http: async () => (path, headers, body) => new Promise((resolve, reject) => {
    const options = { method: "POST", agent, headers: { ...headers, "Content-Length": Buffer.byteLength(body) } };
    const request = http.request(url + path, options, (answer) => {
      let text = "";
      answer.setEncoding("utf8").on("data", (part) => { text += part; }).on("end", () => resolve([answer.statusCode, text]));
    });
    request.on("error", reject).end(body);
  }),
  undici: async () => {
    const { request } = await import("undici");
    return async (path, headers, body) => {
      const answer = await request(url + path, { method: "POST", headers, body });
      return [answer.statusCode, await answer.body.text()];
    };
  },
  axios: async () => {
    const { default: axios } = await import("axios");
    const client = axios.create({ baseURL: url, httpAgent: agent, validateStatus: () => true, transformResponse: (text) => text });
    return async (path, headers, body) => {
      const answer = await client.post(path, body, { headers, transformRequest: (text) => text });
      return [answer.status, answer.data];
    };
  },
};

const send = await LIBRARIES[library]();

async function step(name, path, body, token = "", type = "application/json") {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const [status, answer] = await send(path, { "Content-Type": type, Authorization: `Bearer ${token}` }, text);
  const rows = ["pull", "again"].includes(name) ? [JSON.parse(answer).data.end_user.length] : [];
  console.log(name, status, ...rows);
  return answer;
}

const person = { firstName: "Asha", lastName: "Rao", email, password: "password123" };
await step("register", "/api/customers/register", person);
const { token } = JSON.parse(await step("login", "/api/customers/login", person)).data;
await step("push", `${SYNC}/push`, PUSH, token);
await step("pull", `${SYNC}/pull`, PULL, token);
await step("unauthorized", `${SYNC}/push`, " ".repeat(5 << 20), "none");
await step("too_large", `${SYNC}/push`, " ".repeat(20 << 20), token);
await step("unsupported", `${SYNC}/push`, PUSH, token, "text/plain");
await step("again", `${SYNC}/pull`, PULL, token);
process.exit(0);
