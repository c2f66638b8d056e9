/** The options of `compare` that are its own. */
import { EMBEDDED_MODELS } from "../mod.ts";
import type { Flag } from "./flags.ts";
import { COMPARE_PRESETS } from "./presets.ts";
import { REQUEST_FLAGS } from "./request.ts";

/** Layouts, methods and seeds. */
export const COMPARED_FLAGS: readonly Flag[] = [
  {
    name: "layouts",
    value: "FILE.jsonl",
    help: "a request on each line, as for batch",
  },
  {
    name: "random",
    value: "N",
    help: `layouts of 1 to 3 things in the words of ${EMBEDDED_MODELS[0]}`,
  },
  { name: "seed", value: "N", help: "of --random (0)" },
  {
    name: "methods",
    value: "LIST",
    help: "such as none,winwinlay:snr=0.15,rho=0:0",
  },
  {
    name: "variants",
    value: "FILE.json",
    help: 'names with guidance, such as {"mine": {"snr": 0.1}}',
  },
  {
    name: "preset",
    value: "NAME",
    choices: Object.keys(COMPARE_PRESETS),
    help: "the methods of a table or figure of the paper, or of an open choice",
  },
  {
    name: "against",
    value: "METHOD",
    help: "what the differences are to (the first, or the preset's)",
  },
  {
    name: "seeds",
    value: "N",
    help: "pictures per layout and method (1)",
  },
  {
    name: "detector",
    value: "FOLDER",
    help: `with detector.onnx and detector.json (that of ${
      EMBEDDED_MODELS[0]
    }, for it)`,
  },
];

/** Where results go. */
export const RESULT_FLAGS: readonly Flag[] = [
  {
    name: "out",
    short: "o",
    value: "FOLDER",
    help:
      "images/, results.jsonl, table.md, table.csv, contact-sheet.png; goes on with what is there",
  },
  {
    name: "part",
    value: "K/N",
    help:
      "paint only every Nth picture from the Kth on, and leave scores to a run without it: several processes share the work",
  },
  {
    name: "rescore",
    value: "FOLDER",
    help: "score the pictures that are there, and nothing else",
  },
  {
    name: "force",
    help: "paint again what is there for another request",
  },
];

/** What goes into every request. */
export const PICTURE_FLAGS: readonly Flag[] = [
  ...REQUEST_FLAGS.filter(({ name }) =>
    ![
      "prompt",
      "box",
      "mask",
      "layout",
      "from",
      "seed",
      "best-of",
      "preset",
      "method",
    ].includes(name)
  ),
  {
    name: "settings",
    value: "NAME",
    choices: ["model", "paper"],
    help: "settings to start from: the model's own, or the paper's (model)",
  },
];
