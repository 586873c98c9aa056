// Requests to the server that this page came from: keys, overload, errors.

import { keep, kept } from "./store.js";

const KEY = "protclip-key";
const MAX_TRIES = 6;

/** The key that the user gave; where the browser keeps nothing, it is here alone. */
let given = null;
const keyNow = () => kept("sessionStorage", KEY) ?? given;

/** An answer that is an error, or none. */
export class ServerError extends Error {
  constructor(message, { status = null, type = null, requestId = null } = {}) {
    super(message);
    Object.assign(this, { status, type, requestId });
  }
}

/**
 * The JSON that a route answers.
 *
 * Where a key is needed, `askForKey(why)` is asked for one. While the server has too much to do it is asked again after
 * the time that it says, and `onWait(seconds, message)` is told each second; `signal` ends that too.
 */
export async function ask(route, { body, signal, askForKey, onWait = () => {} } = {}) {
  for (let tries = 1; ; tries++) {
    const { answer, text } = await send(route, body, signal);
    if (answer.ok) return objectOf(text);
    const error = errorOf(answer, text);
    if (answer.status === 401 && askForKey) {
      given = await askForKey(keyNow() === null ? "" : "The server does not know this key.");
      keep("sessionStorage", KEY, given);
    } else if ((answer.status === 429 || answer.status === 503) && tries < MAX_TRIES) {
      await wait(Number(answer.headers.get("Retry-After")) || 1, signal, (left) => onWait(left, error.message));
    } else {
      throw error;
    }
  }
}

async function send(route, body, signal) {
  const headers = {};
  const key = keyNow();
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  try {
    const answer = await fetch(new URL(route, document.baseURI), {
      method: body ? "POST" : "GET",
      body: body && JSON.stringify(body),
      headers,
      signal,
      cache: "no-store",
    });
    return { answer, text: await answer.text() };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. It may have been stopped, or the network is down.");
  }
}

function objectOf(text) {
  try {
    const object = JSON.parse(text);
    if (object instanceof Object) return object;
  } catch {
    // As where it is something else.
  }
  throw new ServerError("The answer is none of a ProtCLIP server. It was cut off, or something between answers in its place.");
}

function errorOf(answer, text) {
  const requestId = answer.headers.get("X-Request-Id");
  try {
    const { error } = JSON.parse(text);
    return new ServerError(error.message, { status: answer.status, type: error.type, requestId: error.request_id ?? requestId });
  } catch {
    // A proxy's own page.
    return new ServerError(`The answer is an error, status ${answer.status}.`, { status: answer.status, requestId });
  }
}

function wait(seconds, signal, tell) {
  return new Promise((resolve, reject) => {
    let left = Math.ceil(seconds);
    const timer = setInterval(() => (--left > 0 ? tell(left) : finish(resolve)), 1000);
    const abort = () => finish(reject, signal.reason);
    function finish(settle, value) {
      clearInterval(timer);
      signal?.removeEventListener("abort", abort);
      settle(value);
    }
    signal?.addEventListener("abort", abort);
    if (signal?.aborted) abort();
    else tell(left);
  });
}
