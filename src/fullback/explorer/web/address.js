// What a tab keeps: its address with the token and the state, and the browser's storage.

const LONGEST_LINK = 16000;

// Return the part behind the #; a link that would be too long leaves the actions out.
export function addressOf(token, link) {
  const packed = (state) =>
    `#token=${token}&state=${btoa(JSON.stringify(state))
      .replace(/\+/g, "-")
      .replace(/\//g, "_")
      .replace(/=+$/, "")}`;
  const { actions, ...rest } = link;
  const whole = packed(link);
  return whole.length > LONGEST_LINK ? packed({ ...rest, partial: true }) : whole;
}

// Storage may be switched off, as in a notebook's frame.
export function remember(area, name, value) {
  try {
    window[area].setItem(name, value);
  } catch {
    // The tab then forgets it when it is reloaded.
  }
}

export function stored(area, name) {
  try {
    return window[area].getItem(name) ?? "";
  } catch {
    return "";
  }
}

// The address holds the token and, from a link, the state. A link of an earlier run of the server
// has another token; the one of the running server may be known from another tab.
export function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  let state;
  try {
    const text = given.get("state");
    state = text ? JSON.parse(atob(text.replace(/-/g, "+").replace(/_/g, "/"))) : {};
  } catch {
    // A damaged link has no state; the page begins anew.
  }
  return { tokens: [given.get("token") ?? "", stored("localStorage", "token")], state };
}
