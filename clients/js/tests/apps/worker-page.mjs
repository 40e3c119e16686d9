// A page that leaves the exchange to a web worker.
const worker = new Worker(new URL("./worker.mjs", import.meta.url), { type: "module" });
worker.onmessage = ({ data }) => (document.title = data);
worker.postMessage(decodeURIComponent(location.hash.slice(1)).split(" "));
