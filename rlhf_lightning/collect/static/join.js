// The page of the open link: a name, then the session's cookie.

import { root } from "./dom.js";

document.getElementById("join").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = document.querySelector('meta[name="token"]').content;
  const name = document.getElementById("name").value;
  const error = document.getElementById("error");
  try {
    const response = await fetch(`${root}/api/join`, { method: "POST", body: JSON.stringify({ token, name }), headers: { "Content-Type": "application/json" } });
    if (response.ok) location.assign(`${root}/`);
    else error.textContent = (await response.json()).error;
  } catch {
    error.textContent = "No connection: try again.";
  }
});
