// Loaded before anything is drawn, so that a page in dark colours does not flash white.
"use strict";
(() => {
  const read = () => {
    try {
      return localStorage.getItem("queuectl-colours") || "auto";
    } catch {
      return "auto";
    }
  };
  const show = (chosen) => {
    if (chosen === "auto") delete document.documentElement.dataset.colours;
    else document.documentElement.dataset.colours = chosen;
  };
  show(read());
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    const name = () => { button.textContent = `Colours: ${read()}`; };
    button.hidden = false;
    name();
    button.addEventListener("click", () => {
      const order = ["auto", "light", "dark"];
      const next = order[(order.indexOf(read()) + 1) % order.length];
      try {
        localStorage.setItem("queuectl-colours", next);
      } catch { /* private windows keep nothing */ }
      show(next);
      name();
    });
  });
})();
