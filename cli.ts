#!/usr/bin/env bun
/**
 * The command line: parse, print, exit.
 *
 * ```sh
 * deno run -A cli.ts generate --prompt "a red car on grass" --box "red car=0.1,0.4,0.6,0.9"
 * ```
 *
 * Data goes to stdout, talk to stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 weights, 4 no
 * device or device lost, 5 out of memory, 130 interrupted.
 *
 * @module
 */
import { writeSync } from "node:fs";
import { basename, relative } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import project from "./deno.json" with { type: "json" };
import {
  DeviceLostError,
  DeviceMemoryError,
  EMBEDDED_MODELS,
  nearest,
  NoDeviceError,
  ONNX_PARTS,
  WeightsError,
} from "./mod.ts";
import { batch } from "./cli/batch.ts";
import { compare } from "./cli/compare.ts";
import {
  COMPARED_FLAGS,
  PICTURE_FLAGS,
  RESULT_FLAGS,
} from "./cli/compare_flags.ts";
import { demo } from "./cli/demo.ts";
import { MEMORY_FLAGS, WHERE_FLAGS } from "./cli/device.ts";
import { doctor } from "./cli/doctor.ts";
import {
  type Flag,
  flagHelp,
  type Flags,
  parseFlags,
  UsageError,
} from "./cli/flags.ts";
import { generate } from "./cli/generate.ts";
import { inspect } from "./cli/inspect.ts";
import type { Io } from "./cli/io.ts";
import { METHOD_FLAGS } from "./cli/method.ts";
import { methods } from "./cli/methods.ts";
import { REQUEST_FLAGS } from "./cli/request.ts";
import { weights } from "./cli/weights.ts";

export type { Io } from "./cli/io.ts";

interface Command {
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

const COMMANDS: Readonly<Record<string, Command>> = {
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
      { name: "seed", value: "N", help: "whole number from 0 (3)" },
      { name: "steps", value: "N", help: "denoising steps (50)" },
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

/**
 * Runs one command line.
 *
 * @param args Words after the program's name.
 * @param io Where output goes, and what Ctrl+C aborts.
 * @returns The exit code.
 */
export async function main(args: readonly string[], io: Io): Promise<number> {
  try {
    const [name, ...rest] = args;
    if (name === "--version" || name === "-V") {
      io.out(project.version);
      return 0;
    }
    if (name === undefined) {
      io.say(overview());
      return 2;
    }
    if (["help", "--help", "-h"].includes(name)) {
      io.out(rest[0] === undefined ? overview() : help(rest[0]));
      return 0;
    }
    const command = findCommand(name);
    const flags = command.flags.flatMap(([, list]) => list);
    const parsed = parseFlags(rest, name, flags, command.words);
    if (parsed.has("help")) {
      io.out(help(name));
      return 0;
    }
    return await command.run(parsed, io);
  } catch (error) {
    return explain(error, args.includes("--debug"), io);
  }
}

function findCommand(name: string): Command {
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command !== undefined) return command;
  const names = Object.keys(COMMANDS);
  throw new UsageError(
    `Cannot run ${JSON.stringify(name)}: commands are ${
      names.join(", ")
    }; did you mean ${nearest(name, names)}?`,
  );
}

function overview(): string {
  const commands = Object.entries(COMMANDS);
  return [
    `${program()} ${COMMANDS["generate"]!.example}`,
    "",
    "Commands:",
    ...commands.map(([name, { about }]) => `  ${name.padEnd(10)}${about}`),
    "",
    `Options of a command: ${program()} help COMMAND`,
    "Exit codes: 0 done, 1 failed, 2 usage, 3 weights, 4 no device, 5 out of memory, 130 interrupted",
  ].join("\n");
}

function help(name: string): string {
  const { about, example, usage, flags } = findCommand(name);
  const sections = flags.map(([title, list]) => `${title}:\n${flagHelp(list)}`);
  const lines = [`${program()} ${example}`, `${name}: ${about}`];
  return [...lines, `Usage: winwinlay ${usage}`, ...sections].join("\n\n");
}

/** What a user types to start us. */
function program(): string {
  const script = basename(process.argv[1] ?? "");
  if (script.startsWith("winwinlay")) return "winwinlay";
  const runtime = "Deno" in globalThis ? "deno run -A" : "bun";
  const url = new URL(import.meta.url);
  if (url.protocol !== "file:") return `${runtime} ${url.href}`;
  const path = fileURLToPath(url);
  const near = relative(process.cwd(), path);
  return `${runtime} ${near.length < path.length ? near : path}`;
}

/** Says in one line what went wrong. */
function explain(error: unknown, debug: boolean, io: Io): number {
  const label = io.colour ? "\x1b[31mwinwinlay:\x1b[0m" : "winwinlay:";
  if (io.signal.aborted) {
    io.say(`${label} interrupted`);
    return 130;
  }
  const { message, stack } = error instanceof Error
    ? error
    : new Error(String(error));
  const line = message.replace(/\s*\n\s*/g, " ").trim();
  io.say(
    `${label} ${line.startsWith("Cannot ") ? line : `Cannot finish: ${line}`}`,
  );
  if (debug) {
    io.say(stack ?? "");
    for (let cause = error; cause instanceof Error;) {
      cause = cause.cause;
      if (cause !== undefined) {
        io.say(`caused by ${(cause as Error).stack ?? cause}`);
      }
    }
  }
  if (error instanceof UsageError) return 2;
  if (error instanceof WeightsError) return 3;
  if (error instanceof NoDeviceError || error instanceof DeviceLostError) {
    return 4;
  }
  // The cpu backend's arrays: engines have no class for it.
  const full = error instanceof RangeError &&
    /allocation failed|out of memory|invalid typed array length/i.test(line);
  return full || error instanceof DeviceMemoryError ? 5 : 1;
}

/** Writes all of a text at once: `process.exit` does not wait for streams. */
function write(fd: 1 | 2, text: string): void {
  for (let rest = new TextEncoder().encode(text); rest.length > 0;) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      const { code } = error as { code?: string };
      if (code === "EAGAIN") continue; // a slow reader of a pipe
      if (code === "EPIPE") process.exit(1); // nobody reads: `| head`
      throw error;
    }
  }
}

function processIo(signal: AbortSignal): Io {
  const { stdout, stderr, env } = process;
  const terminal = stderr.isTTY === true && env["TERM"] !== "dumb";
  return {
    out: (line) => {
      if (terminal && stdout.isTTY) write(2, "\r\x1b[2K"); // the bar's line
      write(1, `${line}\n`);
    },
    say: (line) => write(2, `${terminal ? "\r\x1b[2K" : ""}${line}\n`),
    live: terminal ? (text) => write(2, text) : undefined,
    columns: stderr.columns || 80,
    colour: terminal && !env["NO_COLOR"],
    signal,
  };
}

if (import.meta.main) {
  const interrupt = new AbortController();
  process.on("SIGINT", () => {
    if (interrupt.signal.aborted) process.exit(130); // a second Ctrl+C
    interrupt.abort();
  });
  process.exit(
    await main(process.argv.slice(2), processIo(interrupt.signal)),
  );
}
