// Sets the colours that were chosen before anything is drawn. No module: those wait for the page.
try {
  document.documentElement.dataset.theme = JSON.parse(localStorage.getItem("thinglog"))?.theme ?? "auto";
} catch {
  document.documentElement.dataset.theme = "auto";
}
