// How it stands: what is under way, what went wrong, and the key that is asked for.

import { ServerError } from "./api.js";
import { make, page } from "./dom.js";

/** The key that the user is asked for. */
let keyAsked = null;

/** Show elements in place of what stood there. */
export function showState(...children) {
  page.state.replaceChildren(...children);
}

/** An error, with the request's id, and a button where `again` may mend it. */
export function errorElement(error, again) {
  const id = error.requestId && make("span", { class: "id" }, `Request ${error.requestId}`);
  const button = again && make("button", { type: "button", onclick: again }, "Try again");
  return make("div", { class: "error", role: "alert" }, make("p", {}, error.message), id, button);
}

/** What an answer lacks, where shards of the index cannot be reached, and a button by which `again` may get the whole. */
export function partialElement({ missing_shards: missing, searched_rows: searched, total_rows: total }, again) {
  const [some, all] = [searched, total].map((count) => count.toLocaleString("en"));
  const shards = `${missing.length > 1 ? "Shards" : "Shard"} ${missing.join(", ")} of the index cannot be reached now`;
  const words = make("p", {},
    make("strong", {}, "Partial answer. "),
    `${shards}: ${some} of ${all} rows were searched, and better hits may be among the others.`);
  return make("div", { class: "partial" }, words, make("button", { type: "button", onclick: again }, "Ask again"));
}

/** Whether the same request may be answered another time. */
export const mayPass = (error) => error instanceof ServerError && (error.status === null || error.status >= 500 || [401, 429].includes(error.status));

/** Requests that are refused together wait for one key. */
export function askForKey(why) {
  keyAsked ??= keyFromUser(why).finally(() => { keyAsked = null; });
  return keyAsked;
}

async function keyFromUser(why) {
  page["key-why"].textContent = why;
  page.key.value = "";
  page.keys.showModal();
  try {
    return await new Promise((resolve, reject) => {
      page["key-form"].onsubmit = (event) => {
        event.preventDefault();
        const key = page.key.value.trim();
        // The head of a request carries nothing else.
        if (/^[\x21-\x7e]+$/.test(key)) resolve(key);
        else page["key-why"].textContent = "This is no key: a key has ASCII characters alone, and no spaces.";
      };
      page["key-cancel"].onclick = page.keys.oncancel = () =>
        reject(new ServerError("This server answers with a key alone. Ask whoever runs it for one.", { status: 401 }));
    });
  } finally {
    page.keys.close();
  }
}
