// Mixed requests at a constant rate, whatever the answers do; each answer is checked against the known one.
import { check } from "k6";
import encoding from "k6/encoding";
import { SharedArray } from "k6/data";
import http from "k6/http";
import { Counter } from "k6/metrics";

const cases = new SharedArray("cases", () => JSON.parse(open(__ENV.CASES)));
const lost = new Counter("lost"); // no answer, or not 200
const wrong = new Counter("wrong"); // an answer, but not this image's

export const options = {
  discardResponseBodies: false,
  noConnectionReuse: false,
  summaryTrendStats: ["med", "p(99)", "max"],
  scenarios: {
    mixed: {
      executor: "constant-arrival-rate",
      rate: Number(__ENV.RATE),
      timeUnit: "1s",
      duration: `${__ENV.SECONDS}s`,
      preAllocatedVUs: 100,
      maxVUs: 400,
    },
  },
};

export function setup() {}

export default function () {
  const item = cases[Math.floor(Math.random() * cases.length)];
  const explains = Math.random() < 0.5;
  const path = `/v1/models/${__ENV.MODEL}:${explains ? "explain?map=float32" : "predict"}`;
  const response = http.post(__ENV.ADDRESS + path, encoding.b64decode(item.image), {
    headers: { "Content-Type": "image/jpeg" },
    timeout: "30s",
  });
  if (response.status !== 200) {
    lost.add(1);
    console.error(`${response.status} ${response.error} ${String(response.body).slice(0, 200)}`);
    return;
  }
  const body = response.json();
  const right = check(body, {
    label: (b) => b.label === item.label,
    score: (b) => Math.abs(b.score - item.score) < 1e-4,
    map: (b) => !explains || (b.explanation.status === "ok" && Math.abs(b.explanation.map.max - item.max) < 1e-3),
  });
  if (!right) {
    wrong.add(1);
    console.error(`${item.label} ${item.score} but ${body.label} ${body.score}`);
  }
}

export function handleSummary(data) {
  return { [__ENV.SUMMARY]: JSON.stringify(data) };
}
