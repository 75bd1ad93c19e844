// The key: entered once, kept for this tab in sessionStorage, sent in a header and nowhere else.

const NAME = "dubito-key";
let asking = null;

export const key = () => sessionStorage.getItem(NAME);

export function forget() {
  sessionStorage.removeItem(NAME);
}

/** Ask the person for a key; false where they would rather not. All who wait share one question. */
export function askForKey(reason) {
  asking ??= question(reason).finally(() => { asking = null; });
  return asking;
}

function question(reason) {
  const dialog = document.getElementById("key-dialog");
  const input = document.getElementById("key");
  document.getElementById("key-reason").textContent = reason;
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    document.getElementById("key-cancel").onclick = () => dialog.close("");
    dialog.onclose = () => {
      const given = input.value.trim();
      input.value = "";
      if (dialog.returnValue === "use" && given) sessionStorage.setItem(NAME, given);
      resolve(dialog.returnValue === "use" && Boolean(given));
    };
  });
}
