// What the page asks of the study; the only module that fetches.
//
// The token of a subject stays in the fragment of the address: a bookmark or a reload finds the way back, while
// browsers send no fragment to any server, so that it is in no log and no referrer. It goes in a header alone.

const BASE = `/v1/studies/${location.pathname.split("/")[2]}`;

export const hasToken = () => location.hash.length > 1;

// The service refused, and would again.
export class Refused extends Error {
  constructor(status, { code, message, detail } = {}) {
    super(message ?? `The service answered ${status}.`);
    Object.assign(this, { status, code, detail });
  }
}

// Nobody answered, or could not just now: worth another try, after `wait` milliseconds or more.
export class Away extends Error {
  constructor(wait = 0) {
    super("The service cannot be reached.");
    this.wait = wait;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, authorization: `Bearer ${location.hash.slice(1)}` };
  try {
    const response = await fetch(BASE + path, { ...options, headers });
    if (response.ok) return await (path.startsWith("/pictures/") ? response.blob() : response.json());
    if (response.status === 408 || response.status === 429 || response.status >= 500) {
      throw new Away(1000 * (Number(response.headers.get("retry-after")) || 0));
    }
    throw new Refused(response.status, (await response.json().catch(() => null))?.error);
  } catch (error) {
    throw error instanceof Refused || error instanceof Away ? error : new Away();
  }
}

const word = encodeURIComponent;

export const readStudy = () => ask("");

export const readItem = (item) => ask(`/items/${word(item)}`);

export const readPicture = (picture) => ask(`/pictures/${word(picture)}`);

// It arrives though the tab is closed meanwhile.
export const putRanking = (item, body) => ask(`/items/${word(item)}/ranking`, {
  method: "PUT",
  keepalive: true,
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
});

export const finish = () => ask("/finish", { method: "POST" });
