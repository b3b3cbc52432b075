// Not a module: it runs before the first paint, so that a remembered theme does not flash.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try {
      return localStorage.getItem("coocnet.theme");
    } catch {
      return null;
    }
  };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const show = () => document.getElementById("theme")?.setAttribute("aria-pressed", String(isDark()));

  if (stored() === "dark" || stored() === "light") root.dataset.theme = stored();
  dark.addEventListener("change", show);
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem("coocnet.theme", root.dataset.theme);
      } catch {
        // A browser that stores nothing still switches for this visit.
      }
      show();
    });
  });
})();
