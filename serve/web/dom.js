// Elements from data. Text is always a text node: nothing here, or anywhere in the page, makes HTML from a string.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners (`onclick: f`) and children; null and false are left out. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A number of so many digits, with a minus as wide as its digits. */
export const fixed = (value, digits) => value.toFixed(digits).replace("-", "−");

/** All elements of the page that have an id, by it. */
export const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
