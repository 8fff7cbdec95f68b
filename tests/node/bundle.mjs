// A bundle as a Node program reads it: manifest, hashes, models, golden tensors.

import { createHash } from "node:crypto";
import { readFileSync, realpathSync, statSync } from "node:fs";
import { join, sep } from "node:path";
import * as ort from "onnxruntime-web";

const SCHEMA_VERSION = 1;
const ARRAYS = { uint8: Uint8Array, int32: Int32Array, float32: Float32Array, int64: BigInt64Array };

export class Bundle {
  /** Reads the manifest and holds every file against its size and SHA-256; throws where one differs. */
  constructor(folder) {
    this.folder = folder;
    this.manifest = JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8"));
    if (this.manifest.format !== "signver-bundle") throw new Error("manifest.json: not a bundle's manifest");
    if (this.manifest.schema_version > SCHEMA_VERSION) {
      throw new Error(`manifest.json: schema version ${this.manifest.schema_version} is newer than ${SCHEMA_VERSION}`);
    }
    const listed = { ...this.manifest.files };
    for (const model of Object.values(this.manifest.models)) listed[model.file] = model;
    const root = realpathSync(folder) + sep;
    for (const [name, entry] of Object.entries(listed)) {
      const path = realpathSync(join(folder, name));
      if (!path.startsWith(root)) throw new Error(`${name}: lies outside the bundle`);
      if (statSync(path).size !== entry.size) throw new Error(`${name}: not of the size in the manifest`);
      const digest = createHash("sha256").update(readFileSync(path)).digest("hex");
      if (digest !== entry.sha256) throw new Error(`${name}: not the bytes of the manifest`);
    }
    this.golden = JSON.parse(readFileSync(join(folder, this.manifest.golden), "utf8"));
    this.sessions = {};
  }

  /** The answers of a model: name of the output to { data, dims }. */
  async run(kind, feed) {
    const model = this.manifest.models[kind];
    this.sessions[kind] ??= await ort.InferenceSession.create(readFileSync(join(this.folder, model.file)));
    const session = this.sessions[kind];
    const names = (values) => values.map((value) => value.name).join();
    if (session.inputNames.join() !== names(model.inputs) || session.outputNames.join() !== names(model.outputs)) {
      throw new Error(`${model.file}: other inputs or outputs than in the manifest`);
    }
    const tensors = Object.entries(feed).map(([name, value]) => {
      const { dtype } = model.inputs.find((input) => input.name === name);
      return [name, new ort.Tensor(dtype, value.data, value.dims)];
    });
    return session.run(Object.fromEntries(tensors));
  }

  /** A stored tensor: { data, dims }. Values are little-endian, as on every machine that Node runs on. */
  tensor(name) {
    const { file, dtype, shape } = this.golden.tensors[name];
    const bytes = new Uint8Array(readFileSync(join(this.folder, file)));
    return { data: new ARRAYS[dtype](bytes.buffer), dims: shape };
  }

  /** An input made of a tensor: pixels repeated, channels repeated, divided, reshaped, in this order. */
  picture(recipe) {
    let { data, dims } = this.tensor(recipe.tensor);
    const times = recipe.repeat_pixels ?? 1;
    if (times > 1) {
      const [height, width] = dims;
      const larger = new data.constructor(height * width * times * times);
      for (let y = 0; y < height * times; y++) {
        for (let x = 0; x < width * times; x++) {
          larger[y * width * times + x] = data[Math.floor(y / times) * width + Math.floor(x / times)];
        }
      }
      [data, dims] = [larger, [height * times, width * times]];
    }
    const channels = recipe.repeat_channels ?? 1;
    if (channels > 1) {
      const repeated = new data.constructor(data.length * channels);
      data.forEach((value, place) => repeated.fill(value, place * channels, (place + 1) * channels));
      [data, dims] = [repeated, [...dims, channels]];
    }
    if (recipe.divide_by) data = Float32Array.from(data, (value) => Math.fround(value) / recipe.divide_by);
    return { data, dims: recipe.shape ?? dims };
  }
}

/**
 * Cosine of two embeddings; of several references what the manifest's step `references` says, or, without such a
 * step, the cosine with their mean.
 */
export function similarity(references, questioned, steps) {
  const unit = (values) => {
    const length = Math.hypot(...values);
    return Array.from(values, (value) => value / length);
  };
  const dot = (one, two) => one.reduce((sum, value, place) => sum + value * two[place], 0);
  const units = references.map(unit);
  const mean = units[0].map((_, place) => units.reduce((sum, one) => sum + one[place], 0) / units.length);
  const step = steps.find((one) => one.step === "references");
  if (units.length === 1 || !step) return dot(unit(questioned), unit(mean));
  const { consistency, ridge, prior_pairs: prior } = step;
  const count = units.length;
  const system = units.map((one, row) => [...units.map((two, column) => dot(one, two) + (row === column ? ridge : 0)), 1]);
  const border = inverse([...system, [...units.map(() => 1), 0]]);
  const near = [...units.map((one) => dot(one, unit(questioned))), 1];
  const away = 1 - dot(near, border.map((row) => dot(row, near)));
  const own = units.reduce((sum, _, place) => sum + 1 / border[place][place] - ridge, 0) / count;
  const pairs = (count * (count - 1)) / 2;
  const expected =
    (pairs * ((own - ridge / (count - 1)) * (1 - 1 / count ** 2) + ridge / count) +
      prior * ((1 - consistency) * (1 + 1 / count) + ridge / count)) /
    (pairs + prior);
  return consistency + (expected - away) / 2;
}

/** Of a square matrix, by Gauss and Jordan; the largest pivot first. */
function inverse(matrix) {
  const size = matrix.length;
  const rows = matrix.map((row, place) => [...row, ...row.map((_, column) => (place === column ? 1 : 0))]);
  for (let step = 0; step < size; step++) {
    let best = step;
    for (let row = step; row < size; row++) if (Math.abs(rows[row][step]) > Math.abs(rows[best][step])) best = row;
    [rows[step], rows[best]] = [rows[best], rows[step]];
    const pivot = rows[step][step];
    rows[step] = rows[step].map((value) => value / pivot);
    for (let row = 0; row < size; row++) {
      if (row === step) continue;
      const factor = rows[row][step];
      rows[row] = rows[row].map((value, column) => value - factor * rows[step][column]);
    }
  }
  return rows.map((row) => row.slice(size));
}
