// The losses and metrics by task, found by their names and titles; and Swagger UI, which shows those of
// ?losses=giou,ciou&metrics=f1 and what belongs to none. The document of all would keep it busy for seconds.
const asked = new URLSearchParams(location.search);
const chosen = new URLSearchParams({ losses: asked.get("losses") ?? "", metrics: asked.get("metrics") ?? "" });

const buttons = [...document.querySelectorAll("nav button")];
const listOf = (button) => document.getElementById(button.getAttribute("aria-controls"));

function expand(button, expanded) {
  button.setAttribute("aria-expanded", expanded);
  listOf(button).hidden = !expanded;
}

for (const button of buttons) {
  button.addEventListener("click", () => expand(button, button.getAttribute("aria-expanded") === "false"));
}

document.getElementById("find").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/[\s_]+/).filter(Boolean);
  for (const button of buttons) {
    let found = false;
    for (const item of listOf(button).children) {
      item.hidden = !words.every((word) => item.textContent.toLowerCase().includes(word));
      found ||= !item.hidden;
    }
    button.disabled = !found;
    expand(button, found && words.length > 0);
  }
});

SwaggerUIBundle({
  url: `openapi.json?${chosen}`,
  dom_id: "#reference",
  defaultModelsExpandDepth: -1,
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  // it would ask a server elsewhere
  validatorUrl: null,
});
