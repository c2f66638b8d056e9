/** Every command of the command line: what it takes, and what runs. */
import project from "../deno.json" with { type: "json" };
import { EMBEDDED_MODELS, ONNX_PARTS } from "../mod.ts";
import { batch } from "./batch.ts";
import { compare } from "./compare.ts";
import {
  COMPARED_FLAGS,
  PICTURE_FLAGS,
  RESULT_FLAGS,
} from "./compare_flags.ts";
import { demo } from "./demo.ts";
import { MEMORY_FLAGS, WHERE_FLAGS } from "./device.ts";
import { doctor } from "./doctor.ts";
import type { Flag, Flags } from "./flags.ts";
import { generate } from "./generate.ts";
import { inspect } from "./inspect.ts";
import type { Io } from "./io.ts";
import { METHOD_FLAGS } from "./method.ts";
import { methods } from "./methods.ts";
import { REQUEST_FLAGS } from "./request.ts";
import { weights } from "./weights.ts";

/** A command. */
export interface Command {
  /** One line. */
  readonly about: string;
  /** What follows the program's name in a command that works. */
  readonly example: string;
  readonly usage: string;
  readonly flags: readonly (readonly [title: string, flags: readonly Flag[]])[];
  readonly words?: number;
  readonly run: (flags: Flags, io: Io) => Promise<number>;
}

const JSON_FLAG: Flag = {
  name: "json",
  help: "one JSON object per line on stdout",
};
const FORCE_FLAG: Flag = {
  name: "force",
  help: "replace files that are there; without it none is ever overwritten",
};
const VARIANT_FLAG: Flag = {
  name: "variant",
  value: "fp16",
  choices: ["fp16"],
  help: "read the folder's fp16 files",
};
const PREDICTION_FLAG: Flag = {
  name: "prediction",
  value: "NAME",
  choices: ["epsilon", "v_prediction"],
  help:
    "what the UNet of a .safetensors file predicts, where the file does not say it right",
};
const ONNX_FLAG: Flag = {
  name: "onnx",
  value: "PART,...",
  help: `run from ONNX though there are safetensors: ${ONNX_PARTS.join(", ")}`,
};
const COMMON_FLAGS: readonly Flag[] = [
  { name: "debug", help: "show where an error comes from" },
  { name: "help", short: "h", help: "this text" },
];

/** Where every command that paints gets its model from, and what it runs on. */
const MODEL_FLAGS: Command["flags"][number] = [
  "Model and machine",
  [
    {
      name: "model",
      value: "NAME|FOLDER|FILE|URL",
      help: `${
        EMBEDDED_MODELS.join(" or ")
      }, a diffusers folder, a .safetensors file, or owner/name in the hub's cache (tiny-scenes)`,
    },
    VARIANT_FLAG,
    PREDICTION_FLAG,
    ...WHERE_FLAGS,
    ...MEMORY_FLAGS,
    ONNX_FLAG,
  ],
];

/** Sections of the commands that paint with one method. */
const PAINTING_FLAGS: Command["flags"] = [
  MODEL_FLAGS,
  ["The method; in brackets WinWinLay's value in the paper", METHOD_FLAGS],
  ["Other", COMMON_FLAGS],
];

/** By name, in the order of the overview. */
export const COMMANDS: Readonly<Record<string, Command>> = {
  generate: {
    about: "a prompt and boxes -> a picture with each thing in its box",
    example:
      'generate --prompt "a red car and a blue house on grass" --box "red car=0.06,0.52,0.54,0.91" --box "blue house=0.56,0.13,0.95,0.74"',
    usage: "generate --prompt TEXT --box PHRASE=X0,Y0,X1,Y1 ... [options]",
    flags: [
      ["What to paint", REQUEST_FLAGS],
      ["Output", [
        {
          name: "output",
          short: "o",
          value: "FILE.png",
          help: "where to (out.png)",
        },
        FORCE_FLAG,
        {
          name: "overlay",
          help: "also NAME.boxes.png, with the boxes drawn",
        },
        {
          name: "count",
          value: "N",
          help: "seeds SEED, SEED+1, ...: NAME-1.png, NAME-2.png, ... (1)",
        },
        {
          name: "seeds",
          value: "N,N,...",
          help: "these seeds: NAME-1.png, NAME-2.png, ...",
        },
        {
          name: "attention-maps",
          value: "FOLDER",
          help:
            "what each phrase attends to, a picture per step and phrase and an overview",
        },
        {
          name: "energy-svg",
          value: "FILE.svg",
          help: "curves of the energy and of each phrase's attention",
        },
        JSON_FLAG,
      ]],
      ...PAINTING_FLAGS,
    ],
    run: generate,
  },
  batch: {
    about: "a file of layouts, one per line -> a folder of pictures; resumable",
    example: "batch layouts.jsonl -o pictures",
    usage:
      'batch LAYOUTS.jsonl -o FOLDER [options], each line a request such as {"id": "car", "prompt": "a red car", "regions": [{"phrase": "red car", "boxes": [[0.1, 0.4, 0.6, 0.9]]}], "seeds": [1, 2]}',
    flags: [
      [
        "For every line, over what the line says",
        REQUEST_FLAGS.filter(({ name }) =>
          !["box", "mask", "layout", "from", "seed"].includes(name)
        ),
      ],
      ["Output", [
        {
          name: "output",
          short: "o",
          value: "FOLDER",
          help:
            "where to: ID.png, or ID-SEED.png for several seeds, and results.jsonl",
        },
        {
          name: "force",
          help: "paint again what is there for another request",
        },
        {
          name: "keep-going",
          help: "note a picture that fails in errors.jsonl and go on",
        },
        JSON_FLAG,
      ]],
      ...PAINTING_FLAGS,
    ],
    words: 1,
    run: batch,
  },
  compare: {
    about: "layouts x methods x seeds -> pictures, scores, contact sheets",
    example:
      "compare --random 8 --methods none,winwinlay,winwinlay:snr=0.06 --out results",
    usage:
      "compare --layouts FILE.jsonl | --random N --methods LIST | --variants FILE | --preset NAME --out FOLDER [options], or compare --rescore FOLDER",
    flags: [
      ["What to compare", COMPARED_FLAGS],
      ["Output", [...RESULT_FLAGS, JSON_FLAG]],
      ["For every picture, over what its layout says", PICTURE_FLAGS],
      MODEL_FLAGS,
      ["Other", COMMON_FLAGS],
    ],
    run: compare,
  },
  demo: {
    about: "the same seed without and with guidance, side by side",
    example: "demo",
    usage: "demo [-o FOLDER] [options]",
    flags: [["Options", [
      {
        name: "output",
        short: "o",
        value: "FOLDER",
        help: "where to (winwinlay-demo)",
      },
      FORCE_FLAG,
      { name: "seed", value: "N", help: "whole number from 0 (8)" },
      { name: "steps", value: "N", help: "denoising steps (the model's)" },
      ...REQUEST_FLAGS.filter(({ name }) => name === "preset"),
      ...WHERE_FLAGS,
      JSON_FLAG,
      ...COMMON_FLAGS,
    ]]],
    run: demo,
  },
  inspect: {
    about: "what is in a PNG, a prompt or a model",
    example: 'inspect --prompt "a red car on grass" --phrase "red car"',
    usage: "inspect FILE.png | MODEL | FILE.safetensors | --prompt TEXT",
    flags: [["Options", [
      { name: "prompt", value: "TEXT", help: "show its tokens" },
      {
        name: "phrase",
        value: "TEXT",
        many: true,
        help: "with --prompt: which tokens it is",
      },
      {
        name: "model",
        value: "NAME|FOLDER|FILE|URL",
        help: "with --prompt: whose tokenizer (tiny-scenes)",
      },
      VARIANT_FLAG,
      JSON_FLAG,
      ...COMMON_FLAGS,
    ]]],
    words: 1,
    run: inspect,
  },
  weights: {
    about: "models of a hub in the shared cache: list, verify, pull",
    example: "weights pull owner/name --variant fp16",
    usage:
      "weights list | weights verify [OWNER/NAME] | weights pull OWNER/NAME[@REVISION] [FILE ...]",
    flags: [["Options", [
      {
        name: "revision",
        value: "NAME",
        help: "branch, tag or commit (main)",
      },
      VARIANT_FLAG,
      {
        name: "endpoint",
        value: "URL",
        help: "the hub or a mirror of it (HF_ENDPOINT, https://huggingface.co)",
      },
      JSON_FLAG,
      ...COMMON_FLAGS,
    ]]],
    words: 1000,
    run: weights,
  },
  methods: {
    about: "guidance methods and their options",
    example: "methods",
    usage: "methods [NAME]",
    flags: [["Options", [JSON_FLAG, ...COMMON_FLAGS]]],
    words: 1,
    run: methods,
  },
  doctor: {
    about: "adapters, limits, and a test of each backend",
    example: "doctor",
    usage: "doctor [options]",
    flags: [["Options", [
      {
        name: "model",
        value: "NAME|FOLDER|FILE|URL",
        help: "will this model fit? Nothing of it is loaded",
      },
      {
        name: "size",
        value: "N|WxH",
        help: "with --model: of the picture (the model's own)",
      },
      VARIANT_FLAG,
      PREDICTION_FLAG,
      ...WHERE_FLAGS,
      ...MEMORY_FLAGS,
      JSON_FLAG,
      ...COMMON_FLAGS,
    ]]],
    run: (flags, io) => doctor(flags, project.version, io),
  },
};
