// A window of cells, drawn on a canvas with its numbers.

import { brief, colourOf, css, inkOn } from "./arrays.js";

export function paintGrid(canvas, rows, { cell: [width, height], most, scale, exponent, colours }) {
  const columns = Math.max(...rows.map((row) => row.length));
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  canvas.style.width = `${columns * width}px`;
  canvas.style.height = `${rows.length * height}px`;
  canvas.width = Math.round(columns * width * ratio);
  canvas.height = Math.round(rows.length * height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.font = "12px system-ui, sans-serif";
  rows.forEach((row, r) =>
    row.forEach(({ value, why, won }, c) => {
      const colour = colourOf(value, most, colours, scale);
      const [x, y] = [c * width, r * height];
      context.fillStyle = css(colour);
      context.fillRect(x, y, width, height);
      if (why) hatch(context, [x, y, width, height], css(colours.ink, 0.35));
      if (width > 30) {
        context.strokeStyle = css(colours.ink, 0.15);
        context.lineWidth = 1;
        context.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
        context.fillStyle = inkOn(colour);
        context.fillText(brief(value, exponent), x + width / 2, y + height / 2 + 0.5, width - 4);
      }
      if (won) {
        context.strokeStyle = css(colours.focus);
        context.lineWidth = 3;
        context.strokeRect(x + 1.5, y + 1.5, width - 3, height - 3);
      }
    }),
  );
}

function hatch(context, [x, y, width, height], style) {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.strokeStyle = style;
  context.lineWidth = 1;
  context.beginPath();
  for (let n = -height; n < width; n += 5) {
    context.moveTo(x + n, y + height);
    context.lineTo(x + n + height, y);
  }
  context.stroke();
  context.restore();
}
