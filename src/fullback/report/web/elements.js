// Elements of the page: made with their properties, and scrolled to.

export function scrollSideways(scroller, element, [before, behind]) {
  const [outer, inner] = [scroller.getBoundingClientRect(), element.getBoundingClientRect()];
  const [left, right] = [outer.left + before, outer.right - behind];
  if (inner.left < left) scroller.scrollBy({ left: inner.left - left - 20 });
  else if (inner.right > right) scroller.scrollBy({ left: inner.right - right + 20 });
}

export function make(parent, tag, properties = {}) {
  const element = parent.ownerDocument.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "role") element.setAttribute("role", value);
    else if (name.startsWith("aria"))
      element.setAttribute(`aria-${name.slice(4).toLowerCase()}`, value);
    else element[name] = value;
  }
  parent.append(element);
  return element;
}
