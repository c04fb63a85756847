// Orders that the service has not taken yet, kept by the browser, so that neither a reload nor a crash loses one.

const TAB = crypto.getRandomValues(new Uint32Array(2)).join("-");

// Several people may answer at one computer.
const key = ({ subject, item }) => `konkyo-study/${subject}/${item}`;

// Whether it is kept. sent: what was sent and not answered, which may have arrived.
export function keepDraft({ subject, item, revision, ranking, done, sent }) {
  try {
    localStorage.setItem(key({ subject, item }), JSON.stringify({ tab: TAB, revision, ranking, done, sent }));
    return true;
  } catch {
    return false; // switched off, or full
  }
}

export function readDraft(item) {
  try {
    return JSON.parse(localStorage.getItem(key(item)));
  } catch {
    return null;
  }
}

// That of another tab stays: it may be newer.
export function dropDraft(item) {
  if (readDraft(item)?.tab === TAB) localStorage.removeItem(key(item));
}
