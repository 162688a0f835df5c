// Small plots over the last two minutes.

const SAMPLES = 120;

export class Plot {
  // `floor` and `ceiling` are shown at least, whatever the values are.
  constructor(parent, name, unit, { floor = 0, ceiling = 1, digits = 0 } = {}) {
    Object.assign(this, { name, unit, floor, ceiling, digits, values: [] });
    const box = document.createElement("div");
    box.className = "plot";
    const head = document.createElement("div");
    head.className = "plot-head";
    const label = document.createElement("span");
    label.className = "quiet";
    label.textContent = name;
    this.value = document.createElement("b");
    this.value.textContent = "–";
    head.append(label, this.value);
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    box.append(head, this.canvas);
    parent.append(box);
  }

  add(value) {
    this.values.push(Number.isFinite(value) ? value : null);
    if (this.values.length > SAMPLES) this.values.shift();
    this.value.textContent = Number.isFinite(value) ? this.text(value) : "–";
    this.draw();
  }

  text(value) {
    // No minus before what rounds to zero.
    const number = value.toFixed(this.digits).replace(/^-(?=[0.]*$)/, "");
    return this.unit ? `${number} ${this.unit}` : number;
  }

  clear() {
    this.values = [];
    this.value.textContent = "–";
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const scale = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    if (canvas.width !== Math.round(width * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const known = this.values.filter((v) => v !== null);
    const low = Math.min(this.floor, ...known);
    const high = Math.max(this.ceiling, ...known);
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    const y = (value) => height - 3 - (value - low) / (high - low || 1) * (height - 6);
    const x = (n) => width - (this.values.length - 1 - n) * width / (SAMPLES - 1);
    pen.strokeStyle = style.borderTopColor;
    pen.lineWidth = 1;
    for (const level of low < 0 ? [low, 0, high] : [low, high]) {
      pen.beginPath();
      pen.moveTo(0, Math.round(y(level)) + 0.5);
      pen.lineTo(width, Math.round(y(level)) + 0.5);
      pen.stroke();
    }
    pen.fillStyle = style.caretColor;
    pen.font = "9.5px system-ui, sans-serif";
    pen.fillText(high.toFixed(0), 1, 12);
    if (low < 0) pen.fillText(low.toFixed(0), 1, height - 6);
    pen.strokeStyle = style.color;
    pen.lineWidth = 1.6;
    pen.lineJoin = "round";
    pen.beginPath();
    let drawing = false;
    this.values.forEach((value, n) => {
      if (value === null) {
        drawing = false;
        return;
      }
      if (drawing) pen.lineTo(x(n), y(value));
      else pen.moveTo(x(n), y(value));
      drawing = true;
    });
    pen.stroke();
    const last = known.at(-1);
    const words = known.length ? `${this.name}: ${this.text(last)}` : this.name;
    canvas.setAttribute("aria-label", words);
  }
}
