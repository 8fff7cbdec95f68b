// Proves a bundle: `node prove.mjs BUNDLE`. Exit code 0 where hashes, contract and golden vectors hold.

import { Bundle, similarity } from "./bundle.mjs";
import { clean, crop, normalise, reduceBlocks } from "./steps.mjs";

const SAME_IOU = 0.5;
const answers = {};
let failed = 0;

function check(name, difference, limit) {
  const passed = difference <= limit; // false for NaN too
  if (!passed) failed += 1;
  console.log(`${passed ? "ok    " : "FAILED"} ${name}: ${difference.toPrecision(3)}, limit ${limit}`);
}

function overlap(one, other) {
  const height = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const width = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  const shared = Math.max(0, height) * Math.max(0, width);
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return shared / (area(one) + area(other) - shared);
}

const largest = (found, expected) =>
  found.length === expected.length
    ? found.reduce((worst, value, place) => Math.max(worst, Math.abs(value - expected[place])), 0)
    : Infinity;

async function runCase(bundle, golden) {
  const feed = Object.fromEntries(
    Object.entries(golden.inputs).map(([name, recipe]) => [name, bundle.picture(recipe)]),
  );
  const found = await bundle.run(golden.model, feed);
  answers[golden.name] = found;
  for (const [name, wanted] of Object.entries(golden.outputs)) {
    const expected = wanted.values ?? Array.from(bundle.tensor(wanted.tensor).data);
    const data = found[name].data;
    const values = wanted.indices ? wanted.indices.map((place) => data[place]) : Array.from(data);
    check(`${golden.name} ${name}`, largest(values, expected), wanted.tolerance);
  }
}

async function findBoxes(bundle, picture) {
  const step = bundle.manifest.models.detector.preprocessing.find(({ step }) => step === "reduce_blocks");
  const page = reduceBlocks(picture, step);
  const found = await bundle.run("detector", { image: { data: page.data, dims: [1, ...page.dims] } });
  return Array.from({ length: Number(found.num_detections.data[0]) }, (_, place) => ({
    box: Array.from(found.detection_boxes.data.slice(4 * place, 4 * place + 4)),
    score: found.detection_scores.data[place],
    label: Number(found.detection_classes.data[place]),
  }));
}

async function detect(bundle, golden) {
  const free = await findBoxes(bundle, bundle.picture(golden.picture));
  let [missing, box, score] = [0, 0, 0];
  for (const wanted of golden.boxes) {
    const same = free.filter((one) => one.label === wanted.label && overlap(one.box, wanted.box) >= SAME_IOU);
    if (!same.length) {
      missing += 1;
      continue;
    }
    const best = same.reduce((a, b) => (overlap(a.box, wanted.box) >= overlap(b.box, wanted.box) ? a : b));
    free.splice(free.indexOf(best), 1);
    box = Math.max(box, largest(best.box, wanted.box));
    score = Math.max(score, Math.abs(best.score - wanted.score));
  }
  const extra = free.filter((one) => one.score > golden.keep + golden.tolerance.score).length;
  check(`${golden.name} boxes missing or added, of ${golden.boxes.length}`, missing + extra, 0);
  check(`${golden.name} box`, box, golden.tolerance.box);
  check(`${golden.name} score`, score, golden.tolerance.score);
}

async function cleanCrop(bundle, golden) {
  const { data } = await clean(bundle, bundle.picture(golden.picture));
  const expected = bundle.tensor(golden.cleaned.tensor).data;
  check(`${golden.name} grey levels`, largest(Array.from(data), Array.from(expected)), golden.cleaned.tolerance);
}

async function embed(bundle, image) {
  const { embedding } = await bundle.run("extractor", { image });
  return Array.from(embedding.data);
}

async function extract(bundle, golden) {
  const image = normalise(bundle, bundle.picture(golden.picture));
  const stored = bundle.picture(golden.ink).data;
  check(`${golden.name} ink`, largest(Array.from(image.data), Array.from(stored)), golden.ink.tolerance);
  const expected = Array.from(bundle.tensor(golden.embedding.tensor).data);
  const { tolerance } = golden.embedding;
  check(`${golden.name} embedding`, largest(await embed(bundle, image), expected), tolerance);
}

/** The whole way: page, box, crop, ink, embedding, decision. */
async function page(bundle, golden) {
  const [picture, limits] = [bundle.picture(golden.picture), golden.tolerance];
  const boxes = await findBoxes(bundle, picture);
  const same = boxes.find((one) => one.label === golden.label && overlap(one.box, golden.box) >= SAME_IOU);
  if (!same) {
    check(`${golden.name} box found`, 1, 0);
    return;
  }
  check(`${golden.name} box`, largest(same.box, golden.box), limits.box);
  let cut = crop(picture, same.box, golden.margin);
  check(`${golden.name} crop`, largest(cut.dims.slice(0, 2), golden.crop), limits.crop);
  if (bundle.manifest.models.cleaner) cut = await clean(bundle, cut);
  const embedding = await embed(bundle, normalise(bundle, cut));
  const stored = Array.from(bundle.tensor(golden.embedding.tensor).data);
  check(`${golden.name} embedding, 1 - cosine`, 1 - similarity([stored], embedding, []), limits.embedding);
  decide(bundle, golden, [Array.from(bundle.tensor(golden.reference.tensor).data)], embedding);
}

function verify(bundle, golden) {
  const { data, dims } = answers[golden.of].embedding;
  const row = (number) => Array.from(data.slice(number * dims[1], (number + 1) * dims[1]));
  decide(bundle, golden, golden.references.map(row), row(golden.questioned));
}

function decide(bundle, golden, references, questioned) {
  const { postprocessing, thresholds } = bundle.manifest.models.extractor;
  const alike = similarity(references, questioned, postprocessing);
  const genuine = alike >= thresholds.cosine.value;
  check(`${golden.name} similarity`, Math.abs(alike - golden.similarity), golden.tolerance.similarity);
  check(`${golden.name} decision (${genuine ? "genuine" : "not genuine"})`, Number(genuine !== golden.genuine), 0);
}

const kinds = { run: runCase, detect, clean: cleanCrop, extract, verify, page };
try {
  const bundle = new Bundle(process.argv[2]);
  for (const golden of bundle.golden.cases) await kinds[golden.kind](bundle, golden);
  console.log(`${bundle.golden.cases.length} cases, ${failed} differences too large`);
  process.exit(failed ? 1 : 0);
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exit(2);
}
