// What the page asks of the service; the only module that fetches.

export class ServiceError extends Error {}

async function json(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service cannot be reached.");
  }
  let body = null;
  try {
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  if (!response.ok) {
    throw new ServiceError(body?.error?.message ?? `The service answered ${response.status}.`);
  }
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
export function explain(model, blob, { target, method, picture, attention }, signal) {
  const query = new URLSearchParams({ map: "float32", top_k: "10", frame: "original" });
  query.set("overlay", picture ? "blend" : "none");
  if (picture) query.set("alpha", "0");
  if (target) query.set("target", target);
  if (method) query.set("method", method);
  const path = `/v1/models/${encodeURIComponent(model)}:explain?${query}`;
  const headers = { accept: "application/json" };
  if (!attention) {
    headers["content-type"] = blob.type || "application/octet-stream";
    return json(path, { method: "POST", body: blob, headers, signal });
  }
  const body = new FormData();
  body.append("image", blob);
  body.append("attention", JSON.stringify(attention));
  return json(path, { method: "POST", body, headers, signal });
}
