// The list of recent questions, and the colours.

import { make, page } from "./dom.js";
import { forget, recent } from "./link.js";
import { keep } from "./store.js";

const THEMES = { system: "Auto", light: "Light", dark: "Dark" };

/** Make both work; `onRecent(asked)` is told which question is chosen again. */
export function startHeader(onRecent) {
  page.history.addEventListener("toggle", () => page.history.open && showRecent(onRecent));
  document.addEventListener("click", (event) => {
    if (!page.history.contains(event.target)) page.history.open = false;
  });
  page.theme.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    setTheme(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
  });
  setTheme(document.documentElement.dataset.theme);
}

/** Close the list; whether it was open. */
export function closeRecent() {
  const wasOpen = page.history.open;
  page.history.open = false;
  return wasOpen;
}

function showRecent(onRecent) {
  const list = recent();
  page.recent.replaceChildren(
    ...list.map((old) => make("button", { type: "button", onclick: () => (closeRecent(), onRecent(old)) },
      make("span", {}, old.question.trim().slice(0, 120)), old.filter && make("small", {}, old.filter))),
    list.length > 0
      ? make("button", { type: "button", class: "clear", onclick: () => (forget(), showRecent(onRecent)) }, "Clear the list")
      : make("p", { class: "hint" }, "Nothing asked yet. The list stays in this browser."),
  );
}

function setTheme(given) {
  const theme = Object.hasOwn(THEMES, given) ? given : "system";
  document.documentElement.dataset.theme = theme;
  page.theme.replaceChildren(make("span", { "aria-hidden": "true" }, "◐ "), THEMES[theme]);
  page.theme.setAttribute("aria-label", `Colours: ${THEMES[theme]}`);
  keep("localStorage", "protclip-theme", theme);
}
