"use strict";

/* Asks the browser for a passkey, to add one or to log in with it, and sends its answer with the form. */
(() => {
  const form = document.querySelector("form[data-passkey]");
  if (!form) {
    return;
  }
  const said = form.querySelector("[data-passkey-said]");
  const again = form.querySelector("[data-passkey-again]");
  const options = JSON.parse(form.dataset.options);
  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
  const known = (list) => (list || []).map((one) => ({ ...one, id: bytes(one.id) }));

  async function create() {
    const made = await navigator.credentials.create({
      publicKey: {
        ...options,
        challenge: bytes(options.challenge),
        user: { ...options.user, id: bytes(options.user.id) },
        excludeCredentials: known(options.excludeCredentials),
      },
    });
    return {
      id: made.id,
      rawId: text(made.rawId),
      type: made.type,
      response: {
        attestationObject: text(made.response.attestationObject),
        clientDataJSON: text(made.response.clientDataJSON),
        transports: made.response.getTransports ? made.response.getTransports() : [],
      },
      extensions: JSON.stringify(made.getClientExtensionResults()),
    };
  }

  async function get() {
    const found = await navigator.credentials.get({
      publicKey: {
        ...options,
        challenge: bytes(options.challenge),
        allowCredentials: known(options.allowCredentials),
      },
    });
    return {
      id: found.id,
      rawId: text(found.rawId),
      type: found.type,
      response: {
        authenticatorData: text(found.response.authenticatorData),
        clientDataJSON: text(found.response.clientDataJSON),
        signature: text(found.response.signature),
        userHandle: found.response.userHandle ? text(found.response.userHandle) : null,
      },
    };
  }

  async function ask() {
    again.hidden = true;
    said.textContent = "Your browser asks you for your passkey now.";
    try {
      const answer = await (form.dataset.passkey === "create" ? create() : get());
      form.elements.credential.value = JSON.stringify(answer);
      form.submit();
    } catch (error) {
      said.textContent = {
        InvalidStateError: "There is a passkey for this account on this device already.",
        SecurityError: "Passkeys don't work at an IP address. Open this site by its name, such as localhost.",
      }[error.name] || "No passkey was used. Your browser may have none for this site, or the question was closed.";
      again.hidden = false;
    }
  }

  if (window.PublicKeyCredential) {
    again.addEventListener("click", ask);
    ask();
  } else {
    said.textContent = "This browser can't use passkeys here. They need a recent browser, and an address with https.";
  }
})();
