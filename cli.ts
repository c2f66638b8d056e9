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
  nearest,
  NoDeviceError,
  WeightsError,
} from "./mod.ts";
import { flagHelp, parseFlags, UsageError } from "./cli/flags.ts";
import type { Io } from "./cli/io.ts";
import { type Command, COMMANDS } from "./cli/commands.ts";

export type { Io } from "./cli/io.ts";

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

export function overview(): string {
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

export function help(name: string): string {
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
