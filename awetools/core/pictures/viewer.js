// What the page computes; nothing here touches the page. Places are in pixels of the whole picture, from its
// upper left corner; a view is the place in the middle of the window and the zoom, screen pixels a pixel.

const DEG = Math.PI / 180;

// Pictures and tiles

function levelOf(about, zoom) {
  // The smallest level that has a pixel for each of the screen.
  const level = about.last + Math.ceil(Math.log2(zoom) - 1e-9);
  return Math.max(0, Math.min(about.last, level));
}

function tilesIn(about, view, width, height) {
  const level = levelOf(about, view.zoom), size = about.tile * 2 ** (about.last - level);
  const left = view.x - width / 2 / view.zoom, top = view.y - height / 2 / view.zoom;
  const first = [left, top].map(one => Math.max(0, Math.floor(one / size)));
  const endX = Math.min(about.width, left + width / view.zoom), endY = Math.min(about.height, top + height / view.zoom);
  const found = [];
  for (let y = first[1]; y * size < endY; y++) {
    for (let x = first[0]; x * size < endX; x++) {
      found.push({
        name: `${level}/${x}_${y}.png`,
        left: (x * size - left) * view.zoom,
        top: (y * size - top) * view.zoom,
        pixel: view.zoom * 2 ** (about.last - level),
      });
    }
  }
  return found;
}

function zoomed(view, factor, dx, dy, least, most) {
  // What is dx, dy screen pixels from the middle of the window stays there.
  const zoom = Math.max(least, Math.min(most, view.zoom * factor));
  return { x: view.x + dx / view.zoom - dx / zoom, y: view.y + dy / view.zoom - dy / zoom, zoom };
}

// FITS pixels: x0 and y0 are pixels of the image left of and below the picture.

function fitsOf(about, x, y) {
  return [about.x0 + x + 0.5, about.y0 + about.height - y + 0.5];
}

function placeOf(about, x, y) {
  return [x - 0.5 - about.x0, about.height - (y - 0.5 - about.y0)];
}

// The sky: a tangent plane and polynomials, 1, u, v, uu, uv, vv, ...

function polynomial(terms, u, v) {
  let sum = 0, place = 0;
  for (let total = 0; place < terms.length; total++) {
    for (let q = 0; q <= total; q++) sum += terms[place++] * u ** (total - q) * v ** q;
  }
  return sum;
}

function skyOf(sky, x, y) {
  const u = (x - sky.x0) / sky.half, v = (y - sky.y0) / sky.half;
  const xi = polynomial(sky.xi, u, v) * DEG, eta = polynomial(sky.eta, u, v) * DEG;
  const sine = Math.sin(sky.dec * DEG), cosine = Math.cos(sky.dec * DEG);
  const depth = cosine - eta * sine;
  const ra = sky.ra + Math.atan2(xi, depth) / DEG;
  const dec = Math.atan2(sine + eta * cosine, Math.hypot(xi, depth)) / DEG;
  return [((ra % 360) + 360) % 360, dec];
}

function pixelOf(sky, ra, dec) {
  const d = dec * DEG, a = (ra - sky.ra) * DEG;
  const sine = Math.sin(sky.dec * DEG), cosine = Math.cos(sky.dec * DEG);
  const depth = sine * Math.sin(d) + cosine * Math.cos(d) * Math.cos(a);
  if (depth <= 0) return null;
  const s = Math.cos(d) * Math.sin(a) / depth / DEG / sky.half_deg;
  const t = (cosine * Math.sin(d) - sine * Math.cos(d) * Math.cos(a)) / depth / DEG / sky.half_deg;
  // Polynomials lead anywhere from outside of where they were fitted.
  if (Math.max(Math.abs(s), Math.abs(t)) > 1.5) return null;
  return [sky.x0 + sky.half * polynomial(sky.u, s, t), sky.y0 + sky.half * polynomial(sky.v, s, t)];
}

// Texts

function sexagesimal(value, digits) {
  const scale = 10 ** digits, all = Math.round(Math.abs(value) * 3600 * scale);
  const two = one => String(one).padStart(2, "0");
  const minutes = Math.floor(all / (60 * scale));
  const seconds = ((all % (60 * scale)) / scale).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return `${value < 0 ? "-" : ""}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}:${seconds}`;
}

function skyText(ra, dec) {
  const hours = sexagesimal((ra / 15) % 24, 2).replace(/^24/, "00");
  return `${hours} ${dec < 0 ? "" : "+"}${sexagesimal(dec, 1)}`;
}

function angle(text, hours) {
  const parts = text.split(":").map(Number);
  if (parts.some(Number.isNaN) || parts.length > 3 || text.trim() === "") return NaN;
  const size = parts.reduce((sum, one, place) => sum + Math.abs(one) / 60 ** place, 0);
  const signed = text.trim().startsWith("-") ? -size : size;
  return parts.length > 1 && hours ? signed * 15 : signed;
}

function wanted(about, text) {
  // The place that a text names: RA Dec where there is a sky, x y after "px"; null if there is none.
  const given = text.trim(), pixels = !about.sky || /^px/i.test(given);
  const parts = given.replace(/^px/i, "").split(/[\s,]+/).filter(one => one);
  if (parts.length !== 2) return null;
  const [one, other] = [angle(parts[0], !pixels), angle(parts[1], false)];
  if (Number.isNaN(one + other)) return null;
  const pixel = pixels ? [one, other] : pixelOf(about.sky, one, other);
  return pixel && placeOf(about, pixel[0], pixel[1]);
}
