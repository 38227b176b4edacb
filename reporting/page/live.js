// The live view: only a page that report.py --serve hands out asks whether there is a newer one.

const ASK_AGAIN_MS = 2000;

function live() {
  const own = document.querySelector('meta[name="live-version"]')?.content;
  if (!own) return;
  const bar = byId("live");
  const say = (text, trouble = false) => {
    bar.hidden = !text;
    bar.classList.toggle("trouble", trouble);
    if (bar.textContent !== text) bar.textContent = text;
  };
  let misses = 0;
  const ask = async () => {
    if (!document.hidden) {
      try {
        const { version, building, error } = await (await fetch("/status", { cache: "no-store" })).json();
        misses = 0;
        if (String(version) !== own) {
          location.reload();
          return;
        }
        say(
          error
            ? `The report could not be rebuilt, so this is the last good one: ${error}`
            : building
              ? "Records have changed: rebuilding."
              : "",
          Boolean(error),
        );
      } catch {
        misses += 1;
        if (misses > 2) say("The live view has ended; this page stays as it is.");
      }
    }
    setTimeout(ask, ASK_AGAIN_MS);
  };
  setTimeout(ask, ASK_AGAIN_MS);
}
