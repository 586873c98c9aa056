// What the browser keeps for the page. It may keep nothing, or no more: then the page goes on without.

/** A string of "localStorage" or "sessionStorage"; null where there is none. */
export function kept(area, name) {
  try {
    return window[area].getItem(name);
  } catch {
    return null;
  }
}

/** Keep a string; null to keep it no longer. */
export function keep(area, name, value) {
  try {
    if (value === null) window[area].removeItem(name);
    else window[area].setItem(name, value);
  } catch {
    // It is a convenience.
  }
}
