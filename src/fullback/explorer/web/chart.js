// Loss curves on a canvas.

import { number } from "./arrays.js";

const LEFT = 34;
const BELOW = 16;
const ABOVE = 6;

// Draw lines of points [x, y]. `lines` are {points, colour, width, dashed}; y is drawn from 0 up to
// `top`, or to the largest value, cut off where a line runs away.
export function drawCurves(canvas, lines, { last, unit = "batches", top } = {}) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return;
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const style = getComputedStyle(canvas);
  const most = top ?? highest(lines);
  const right = last || Math.max(1, ...lines.flatMap(({ points }) => points.slice(-1).map(([x]) => x)));
  const x = (value) => LEFT + (value / right) * (width - LEFT - 4);
  const y = (value) => ABOVE + (1 - Math.min(value, most * 1.05) / (most * 1.05)) * (height - ABOVE - BELOW);
  context.font = `11px ${style.fontFamily}`;
  context.fillStyle = style.color;
  context.strokeStyle = style.borderTopColor;
  context.lineWidth = 1;
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const share of [0, 0.5, 1]) {
    const at = Math.round(y(most * share)) + 0.5;
    context.beginPath();
    context.moveTo(LEFT, at);
    context.lineTo(width - 4, at);
    context.stroke();
    context.fillText(number(most * share, 2), LEFT - 4, at);
  }
  context.textBaseline = "alphabetic";
  context.fillText(`${right} ${unit}`, width - 4, height - 3);
  context.lineJoin = "round";
  for (const line of lines) trace(context, line, x, y);
}

function highest(lines) {
  const values = lines.flatMap(({ points }) => points.map(([, value]) => value)).filter(Number.isFinite);
  values.sort((one, other) => one - other);
  // Where a line runs away, the others are to be seen all the same.
  return Math.max(values[Math.floor(values.length * 0.98)] ?? 1, 1e-6);
}

function trace(context, { points, colour, width = 1.5, dashed = false }, x, y) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.setLineDash(dashed ? [4, 3] : []);
  context.beginPath();
  points.forEach(([place, value], n) => {
    if (n) context.lineTo(x(place), y(value));
    else context.moveTo(x(place), y(value));
  });
  context.stroke();
  context.setLineDash([]);
}

// A running mean, so that the noise of single batches does not hide the way.
export function smooth(points, span = 9) {
  let mean = null;
  return points.map(([x, value]) => {
    mean = mean === null ? value : mean + (value - mean) * (2 / (span + 1));
    return [x, mean];
  });
}

// A colour of the style sheet.
export function colour(element, name) {
  const probe = element.ownerDocument.createElement("span");
  probe.style.color = `var(--${name})`;
  probe.hidden = true;
  element.ownerDocument.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
