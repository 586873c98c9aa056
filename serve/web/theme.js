// Before the page is drawn, so that it never flashes in the other colours: a plain script in the head.
document.documentElement.dataset.theme = localStorage.getItem("protclip-theme") ?? "system";
