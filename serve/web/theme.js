// Before the page is drawn, so that it never flashes in the other colours: a plain script in the head.
try {
  document.documentElement.dataset.theme = localStorage.getItem("protclip-theme") ?? "system";
} catch {
  // The browser keeps nothing; header.js sets the default.
}
