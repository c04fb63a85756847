// What the page asks of the service; the only module that fetches.

import { askForKey, keyHeaders } from "./key.js";
import { events } from "./stream.js";

export class ServiceError extends Error {}

// A response that is well. Where the service wants a key, a person is asked for it.
async function ask(path, options) {
  for (;;) {
    const key = keyHeaders();
    const response = await send(path, { ...options, headers: { ...options.headers, ...key } });
    if (response.ok) return response;
    const body = await read(response);
    if (response.status === 403) throw new ServiceError(`The service refuses: ${body?.error?.message ?? "not with this key"}.`);
    if (response.status !== 401) throw new ServiceError(body?.error?.message ?? `The service answered ${response.status}.`);
    if (!(await askForKey(key.authorization))) throw new ServiceError("The service answers only with an API key.");
  }
}

async function send(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service cannot be reached.");
  }
}

async function read(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return null;
  }
}

async function json(path, options = {}) {
  const body = await read(await ask(path, options));
  if (body === null) throw new ServiceError("The service's answer cannot be read.");
  return body;
}

export const listModels = async () => (await json("/v1/models")).models ?? [];

export const describe = (model) => json(`/v1/models/${encodeURIComponent(model)}`);

export const listSamples = async () => (await json("/static/samples/samples.json")).samples ?? [];

export async function readSample(sample) {
  const response = await fetch(`/static/samples/${sample.file}`);
  if (!response.ok) throw new ServiceError(`The sample ${sample.title} cannot be read.`);
  return response.blob();
}

// The bytes go as they are: the service decodes, and is the one to judge what it can read.
// attention: rows of cells, negative where the network keeps its own value; null asks for its own throughout.
export function explain(model, blob, { attention, ...wanted }, signal) {
  const path = explainPath(model, wanted);
  const headers = { accept: "application/json" };
  if (!attention) return json(path, { method: "POST", body: blob, headers: { ...headers, ...typeOf(blob) }, signal });
  const body = new FormData();
  body.append("image", blob);
  body.append("attention", JSON.stringify(attention));
  return json(path, { method: "POST", body, headers, signal });
}

// The same by a method of many passes: told of each step, and ended with the signal.
export async function explainLong(model, blob, wanted, signal, progress) {
  const headers = { accept: "text/event-stream", ...typeOf(blob) };
  const path = explainPath(model, { ...wanted, interim: true });
  const response = await ask(path, { method: "POST", body: blob, headers, signal });
  try {
    for await (const { event, data } of events(response)) {
      if (event === "progress") progress(data);
      if (event === "result") return data;
      if (event === "error") throw new ServiceError(data.error?.message ?? "The service gave up.");
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ServiceError) throw error;
  }
  signal.throwIfAborted();
  throw new ServiceError("The connection to the service was lost.");
}

const typeOf = (blob) => ({ "content-type": blob.type || "application/octet-stream" });

function explainPath(model, { target, truth, method, picture, interim }) {
  const query = new URLSearchParams({ map: "float32", top_k: "10", frame: "original" });
  query.set("overlay", picture ? "blend" : "none");
  if (picture) query.set("alpha", "0");
  for (const [name, value] of Object.entries({ target, truth, method, interim })) if (value) query.set(name, value);
  return `/v1/models/${encodeURIComponent(model)}:explain?${query}`;
}
