// A stacked video, the picture above its matte, drawn on a canvas whose background is the page's.

const VERTEX = `
attribute vec2 corner;
varying vec2 place;
void main() {
  place = corner * 0.5 + 0.5;
  gl_Position = vec4(corner, 0.0, 1.0);
}`;

// Half a pixel from the seam, so that neither half shows in the other. The colours are straight; a canvas wants them multiplied by alpha.
const FRAGMENT = `
precision highp float;
varying vec2 place;
uniform sampler2D video;
uniform float height;
void main() {
  float y = clamp(place.y * 0.5, 0.5 / height, 0.5 - 0.5 / height);
  vec3 color = texture2D(video, vec2(place.x, y + 0.5)).rgb;
  float alpha = texture2D(video, vec2(place.x, y)).r;
  gl_FragColor = vec4(color * alpha, alpha);
}`;

function program(gl) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(`the shader does not link: ${gl.getProgramInfoLog(made)}`);
  return made;
}

/** Draws the frames of a `<video>` of twice the height as they come. The canvas has the size of the picture; CSS scales it. */
export class Stacked {
  #gl;
  #height;
  #running = true;

  constructor(video, canvas) {
    this.video = video;
    this.canvas = canvas;
    this.frames = 0;
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => this.#prepare());
    this.#prepare();
    this.#next();
  }

  #prepare() {
    const gl = this.canvas.getContext("webgl", { alpha: true, premultipliedAlpha: true, antialias: false });
    if (!gl) throw new Error("this browser has no WebGL, which draws the picture");
    const made = program(gl);
    gl.useProgram(made);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
    const corner = gl.getAttribLocation(made, "corner");
    gl.enableVertexAttribArray(corner);
    gl.vertexAttribPointer(corner, 2, gl.FLOAT, false, 0, 0);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const [name, value] of [["WRAP_S", gl.CLAMP_TO_EDGE], ["WRAP_T", gl.CLAMP_TO_EDGE], ["MIN_FILTER", gl.LINEAR], ["MAG_FILTER", gl.LINEAR]]) {
      gl.texParameteri(gl.TEXTURE_2D, gl[`TEXTURE_${name}`], value);
    }
    gl.pixelStorei(gl.UNPACK_FLIP_Y_WEBGL, true);
    this.#height = gl.getUniformLocation(made, "height");
    this.#gl = gl;
  }

  #next() {
    if (!this.#running) return;
    const draw = () => {
      this.draw();
      this.#next();
    };
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(draw);
    else requestAnimationFrame(draw);
  }

  /** Draws the frame that the video shows. */
  draw() {
    const { videoWidth: width, videoHeight: height } = this.video;
    const gl = this.#gl;
    if (!width || height < 2 || gl.isContextLost()) return;
    if (this.canvas.width !== width || this.canvas.height !== height / 2) {
      Object.assign(this.canvas, { width, height: Math.floor(height / 2) });
      gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    }
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, this.video);
    gl.uniform1f(this.#height, height);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    this.frames += 1;
  }

  stop() {
    this.#running = false;
  }
}
