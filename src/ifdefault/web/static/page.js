// Keeps the first page up to date: the server sends the parts that have changed, as it would render
// them. Without this script the page reloads itself.
"use strict";
const parts = new EventSource("/live");
const connection = document.getElementById("connection");

function replace(id, html) {
  const part = document.getElementById(id);
  if (!part) return location.reload(); // an uplink is new
  const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
  part.innerHTML = html; // the server has escaped what others named
  if (focused) document.getElementById(focused)?.focus();
}

parts.addEventListener("message", (message) => {
  connection.textContent = "";
  for (const [id, html] of Object.entries(JSON.parse(message.data))) replace(id, html);
  const headline = document.querySelector("h1");
  document.title = headline.textContent + document.title.slice(document.title.lastIndexOf(" – "));
});
parts.addEventListener("error", () => {
  connection.textContent = "No connection to this host; trying again.";
});
