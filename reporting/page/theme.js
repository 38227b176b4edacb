// before anything is drawn, so that no page flashes in the other theme
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  try {
    const theme = localStorage.getItem("which-backbone-theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  } catch {
    // a browser that keeps nothing for files: the theme of the system then
  }
})();
