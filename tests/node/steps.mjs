// The steps that a manifest names, done to pixels: from a page to the crop, its ink and what the extractor sees.
//
// Pictures are { data, dims }: uint8, rows first, [height, width, 3] in colour and [height, width] in grey.

const FILTERS = {
  box: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  // Keys' cubic convolution with a = -1/2.
  bicubic: {
    support: 2,
    weight: (x) => {
      const far = Math.abs(x);
      if (far < 1) return (1.5 * far - 2.5) * far * far + 1;
      return far < 2 ? ((-0.5 * far + 2.5) * far - 4) * far + 2 : 0;
    },
  },
};
const toByte = (value) => Math.max(0, Math.min(255, Math.floor(value + 0.5)));

/** The step `reduce_blocks`, on a page in colour. */
export function reduceBlocks(picture, step) {
  const [height, width] = picture.dims;
  const [inputHeight, inputWidth] = step.input_size;
  const n = Math.floor(Math.max(height / inputHeight, width / inputWidth) / step.divisor);
  return n < step.least ? picture : averageBlocks(picture, n);
}

/** n x n pixels made one by their mean, rounded; what is left over at the edges is averaged too. */
function averageBlocks({ data, dims: [height, width, channels] }, n) {
  const [rows, columns] = [Math.ceil(height / n), Math.ceil(width / n)];
  const reduced = new Uint8Array(rows * columns * channels);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const [bottom, right] = [Math.min(height, (row + 1) * n), Math.min(width, (column + 1) * n)];
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (let y = row * n; y < bottom; y++) {
          for (let x = column * n; x < right; x++) sum += data[(y * width + x) * channels + channel];
        }
        const count = (bottom - row * n) * (right - column * n);
        reduced[(row * columns + column) * channels + channel] = Math.floor(sum / count + 0.5);
      }
    }
  }
  return { data: reduced, dims: [rows, columns, channels] };
}

/** The step `crop`: a box of fractions, grown by a margin, cut out of the page. */
export function crop({ data, dims: [height, width, channels] }, [ymin, xmin, ymax, xmax], margin) {
  const [above, beside] = [margin * (ymax - ymin), margin * (xmax - xmin)];
  const top = Math.min(Math.max(Math.floor((ymin - above) * height), 0), height - 1);
  const left = Math.min(Math.max(Math.floor((xmin - beside) * width), 0), width - 1);
  const bottom = Math.min(Math.max(Math.round((ymax + above) * height), top + 1), height);
  const right = Math.min(Math.max(Math.round((xmax + beside) * width), left + 1), width);
  const rows = [];
  for (let y = top; y < bottom; y++) {
    rows.push(data.subarray((y * width + left) * channels, (y * width + right) * channels));
  }
  const cut = new Uint8Array((bottom - top) * (right - left) * channels);
  rows.forEach((row, number) => cut.set(row, number * row.length));
  return { data: cut, dims: [bottom - top, right - left, channels] };
}

/** Which source pixels make each pixel of a line, and their shares; filters widen where a line is shortened. */
function shares(source, target, filter) {
  const scale = source / target;
  const wide = Math.max(scale, 1);
  return Array.from({ length: target }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - filter.support * wide + 0.5));
    const end = Math.min(source, Math.trunc(centre + filter.support * wide + 0.5));
    const weights = [];
    for (let x = first; x < end; x++) weights.push(filter.weight((x - centre + 0.5) / wide));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/** Resampled along the rows, then along the columns, rounded to 8 bits after each, as Pillow does it. */
function resize({ data, dims: [height, width, channels] }, rows, columns, filter) {
  const across = new Uint8Array(height * columns * channels);
  shares(width, columns, filter).forEach(({ first, weights }, x) => {
    for (let y = 0; y < height; y++) {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        weights.forEach((weight, n) => (sum += weight * data[(y * width + first + n) * channels + c]));
        across[(y * columns + x) * channels + c] = toByte(sum);
      }
    }
  });
  const result = new Uint8Array(rows * columns * channels);
  const line = columns * channels;
  shares(height, rows, filter).forEach(({ first, weights }, y) => {
    for (let x = 0; x < line; x++) {
      let sum = 0;
      weights.forEach((weight, n) => (sum += weight * across[(first + n) * line + x]));
      result[y * line + x] = toByte(sum);
    }
  });
  return { data: result, dims: [rows, columns, channels] };
}

/** The step `fit_square`: the square, and where the picture lies in it. */
function fitSquare(picture, { side, fill, filter, filter_below_half }) {
  const [height, width, channels] = picture.dims;
  const scale = side / Math.max(height, width);
  const [rows, columns] = [height, width].map((length) => Math.max(1, Math.round(length * scale)));
  const fitted = resize(picture, rows, columns, FILTERS[scale < 0.5 ? filter_below_half : filter]);
  const [top, left] = [Math.floor((side - rows) / 2), Math.floor((side - columns) / 2)];
  const square = new Uint8Array(side * side * channels).fill(fill);
  for (let y = 0; y < rows; y++) {
    const row = fitted.data.subarray(y * columns * channels, (y + 1) * columns * channels);
    square.set(row, ((top + y) * side + left) * channels);
  }
  return { square, top, left, rows, columns };
}

/** The ink of a crop through the bundle's cleaner, with its steps before and after: grey, dark ink on white. */
export async function clean(bundle, picture) {
  const { preprocessing, postprocessing } = bundle.manifest.models.cleaner;
  const step = preprocessing.find((one) => one.step === "fit_square");
  const by = preprocessing.find((one) => one.step === "divide").by;
  const { square, top, left, rows, columns } = fitSquare(picture, step);
  const input = { data: Float32Array.from(square, (value) => value / by), dims: [1, step.side, step.side, 3] };
  const { output } = await bundle.run("cleaner", { input });
  const channel = postprocessing.find((one) => one.step === "channel").index;
  const times = postprocessing.find((one) => one.step === "multiply").by;
  const data = new Uint8Array(rows * columns);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      data[y * columns + x] = toByte(output.data[((top + y) * step.side + left + x) * 3 + channel] * times);
    }
  }
  return { data, dims: [rows, columns] };
}

/** The steps before the extractor: float32 [1, height, width, 1], the share of ink. */
export function normalise(bundle, picture) {
  const steps = Object.fromEntries(bundle.manifest.models.extractor.preprocessing.map((one) => [one.step, one]));
  const blocks = Math.ceil(Math.max(...picture.dims.slice(0, 2)) / steps.limit.longest);
  const whole = grey(blocks > 1 ? averageBlocks(picture, blocks) : picture, steps.grey.weights);
  const { data, dims } = steps.enlarge ? enlarge(whole, steps.enlarge) : whole;
  const [height, width] = dims;
  const threshold = otsu(data);
  const ink = Float64Array.from(data, (value) => (value <= threshold ? 1 : 0));
  const [down, across] = [new Float64Array(height), new Float64Array(width)];
  ink.forEach((value, place) => {
    down[Math.floor(place / width)] += value;
    across[place % width] += value;
  });
  const [y, x] = [moments(down), moments(across)];
  const { flattest } = steps.moments;
  x.deviation = Math.max(x.deviation, flattest * y.deviation);
  y.deviation = Math.max(y.deviation, flattest * x.deviation);
  const { size, spread, balance } = steps.scale_by_moments;
  const [a, b] = [size[0] / 2 / spread[0] / y.deviation, size[1] / 2 / spread[1] / x.deviation];
  const [more, less] = [(1 + balance) / 2, (1 - balance) / 2];
  const rows = areas(height, size[0], y.mean, a ** more * b ** less);
  const columns = areas(width, size[1], x.mean, b ** more * a ** less);
  const result = new Float32Array(size[0] * size[1]);
  rows.forEach((fromRows, row) => {
    columns.forEach((fromColumns, column) => {
      let sum = 0;
      for (const [sy, shareY] of fromRows) {
        for (const [sx, shareX] of fromColumns) sum += shareY * shareX * ink[sy * width + sx];
      }
      result[row * size[1] + column] = sum;
    });
  });
  return { data: result, dims: [1, ...size, 1] };
}

/** The step `enlarge`, on a picture in grey. */
function enlarge({ data, dims }, { below, filter }) {
  let factor = 1;
  while (factor < 64 && Math.max(...dims) * factor < below) factor *= 2;
  if (factor === 1) return { data, dims };
  const large = resize({ data, dims: [...dims, 1] }, dims[0] * factor, dims[1] * factor, FILTERS[filter]);
  return { data: large.data, dims: large.dims.slice(0, 2) };
}

function grey({ data, dims }, [red, green, blue]) {
  if (dims.length === 2) return { data, dims };
  const levels = new Uint8Array(data.length / 3);
  for (let n = 0; n < levels.length; n++) {
    levels[n] = toByte(red * data[3 * n] + green * data[3 * n + 1] + blue * data[3 * n + 2]);
  }
  return { data: levels, dims: dims.slice(0, 2) };
}

/** The grey level with the largest variance between what is at or below it and the rest. */
function otsu(levels) {
  const counts = new Float64Array(256);
  levels.forEach((level) => (counts[level] += 1));
  const mass = counts.reduce((sum, count, level) => sum + count * level, 0);
  let [best, largest, below, massBelow] = [-1, 0, 0, 0];
  counts.forEach((count, level) => {
    below += count;
    massBelow += count * level;
    const weight = below * (levels.length - below);
    const between = weight > 0 ? (mass * below - massBelow * levels.length) ** 2 / weight : 0;
    if (between > largest) [best, largest] = [level, between];
  });
  return best;
}

function moments(mass) {
  const total = mass.reduce((sum, value) => sum + value, 0);
  const mean = mass.reduce((sum, value, place) => sum + value * (place + 0.5), 0) / total;
  const variance = mass.reduce((sum, value, place) => sum + value * (place + 0.5 - mean) ** 2, 0) / total;
  return { mean, deviation: Math.sqrt(variance + 1 / 12) };
}

/** For each target pixel the source pixels below it and their shares: [[place, share], ...]. */
function areas(source, target, middle, scale) {
  const step = 1 / scale;
  return Array.from({ length: target }, (_, place) => {
    const low = middle + (place - target / 2) * step;
    const found = [];
    for (let x = Math.max(0, Math.floor(low)); x < Math.min(source, Math.ceil(low + step)); x++) {
      found.push([x, (Math.min(low + step, x + 1) - Math.max(low, x)) / step]);
    }
    return found;
  });
}
