// The page's colours: the system's, light or dark.

import { remember } from "./address.js";

const THEMES = { "": ["◐", "as the system has them"], light: ["☀", "light"], dark: ["☾", "dark"] };

export function nextTheme(button) {
  const names = Object.keys(THEMES);
  const now = document.documentElement.dataset.theme ?? "";
  showTheme(button, names[(names.indexOf(now) + 1) % names.length]);
}

export function showTheme(button, name) {
  const [sign, said] = THEMES[name] ?? THEMES[""];
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  button.textContent = sign;
  button.setAttribute("aria-label", `Colours: ${said}`);
  remember("localStorage", "theme", name);
}
