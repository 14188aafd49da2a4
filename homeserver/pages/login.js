// https://spec.matrix.org/v1.19/client-server-api/#login-fallback
const form = document.querySelector("form");
const failure = document.querySelector(".failure");
const given = new URLSearchParams(location.search);

form.addEventListener("submit", async event => {
  event.preventDefault();
  failure.textContent = "";
  const body = {
    type: "m.login.password",
    identifier: {type: "m.id.user", user: form.elements.user.value},
    password: form.elements.password.value,
  };
  for (const name of ["device_id", "initial_device_display_name"]) {
    if (given.has(name)) body[name] = given.get(name);
  }
  if (given.has("refresh_token")) body.refresh_token = given.get("refresh_token") === "true";
  try {
    const headers = {"Content-Type": "application/json"};
    const answer = await fetch("/_matrix/client/v3/login", {method: "POST", headers, body: JSON.stringify(body)});
    const content = await answer.json();
    if (!answer.ok) {
      failure.textContent = content.error;
    } else if (window.matrixLogin && window.matrixLogin.onLogin) {
      window.matrixLogin.onLogin(content);
    } else {
      failure.textContent = "No client has opened this page: there is nobody to log in for.";
    }
  } catch (error) {
    failure.textContent = "The server cannot be reached.";
  }
});
