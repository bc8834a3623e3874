// Signing in: by name and password, or by a token.

import { button, fill, h, id } from "../dom.js";
import { signIn } from "../session.js";
import { problemBox } from "../tell.js";

export const title = "Sign in";

export function mount(root, app) {
  let byToken = false;
  const name = input("Name", { type: "text", autocomplete: "username", autocapitalize: "off", spellcheck: "false" });
  const password = input("Password", { type: "password", autocomplete: "current-password" });
  const token = input("Token", { type: "password", autocomplete: "off" });
  const problem = problemBox();
  const go = button("Sign in", { type: "submit", class: "primary", "data-test": "sign-in" });
  const fields = h("div", { class: "fields" });
  const other = button("", { class: "plain", onclick: () => show(!byToken) });
  const form = h("form", {
    class: "sign-in",
    onsubmit: async (event) => {
      event.preventDefault();
      problem.show(null);
      go.disabled = true;
      try {
        const proof = byToken ? { token: token.input.value.trim() } : { name: name.input.value, password: password.input.value };
        app.signedIn(await signIn(proof));
      } catch (error) {
        problem.show(error);
        if (error.status === 401) problem.textContent = byToken ? "This token is not known, or it is not valid any more. Ask an administrator for a new one." : "Name and password do not fit. Try again; after several failures each try takes longer.";
        (byToken ? token : password).input.select();
      }
      go.disabled = false;
    },
  }, h("h1", null, "Sign in"), h("p", { class: "dim" }, "With the name and password, or the token, that thinglog’s broker knows you by."), fields, problem, h("footer", null, go, other));

  function show(token_) {
    byToken = token_;
    fill(fields, byToken ? token.whole : [name.whole, password.whole]);
    fill(other, byToken ? "Use name and password" : "Use a token");
    (byToken ? token : name).input.focus();
  }
  fill(root, h("div", { class: "page narrow" }, form));
  show(false);
  return { update() {}, close() {} };
}

function input(label, props) {
  const element = h("input", { id: id("sign-in"), required: true, ...props });
  return { input: element, whole: h("label", { class: "field" }, h("span", null, label), element) };
}
