// A page that will be written anew loads itself anew, where the reader is in it; ever more rarely while nothing
// has changed: whoever writes it may have been killed. The last version comes back to the place, and stays.
(() => {
  const { written } = document.documentElement.dataset, key = `facenas ${location.pathname}`;
  const details = [...document.querySelectorAll("details")], shown = document.getElementById("trials-shown");
  const member = () => document.querySelector("tr[data-member][aria-current]")?.dataset.member;
  let before;
  try {
    before = JSON.parse(sessionStorage.getItem(key) ?? "{}");
    sessionStorage.removeItem(key);
  } catch {
    return; // the browser lets the page remember nothing
  }

  const back = () => scrollTo({ top: before.top, behavior: "instant" });
  if (before.written) {
    details.forEach((one, i) => { one.open = before.open[i]; });
    back(); // at once: the charts take a while
    addEventListener("load", () => { // what listens is there now
      if (shown && before.shown) {
        shown.value = before.shown;
        shown.dispatchEvent(new Event("change"));
      }
      if (before.member !== member()) document.querySelector(`tr[data-member="${before.member}"]`)?.click();
      back();
    });
  }

  if (!written) return;
  history.scrollRestoration = "manual";
  const pause = before.written === written ? Math.min(2 * before.pause, 30) : 3; // seconds
  function reload() {
    if (document.hidden || !getSelection().isCollapsed) { // nobody looks, or somebody copies
      setTimeout(reload, 1000);
      return;
    }
    const open = details.map((one) => one.open);
    const state = { written, pause, open, shown: shown?.value, member: member(), top: scrollY };
    sessionStorage.setItem(key, JSON.stringify(state));
    location.reload();
  }
  addEventListener("load", () => { setTimeout(reload, 1000 * pause); });
})();
