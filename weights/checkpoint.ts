// checkpoint: what a diffusers folder and a single file have in common.
import type { ReadOptions } from "./byte_source.ts";
import type {
  Component,
  ComponentName,
  ComponentOptions,
} from "./component.ts";
import type { JsonObject, JsonValue } from "./strict_json.ts";

/** A pipeline's configs, small files and components under diffusers' names, wherever they come from. */
export interface Checkpoint extends AsyncDisposable {
  /** The path or URL it was opened with. */
  readonly location: string | URL;
  /** The last name of the location, for people. */
  readonly name: string;
  /** Whether it is one file, with no others beside it, such as ONNX exports. */
  readonly singleFile: boolean;
  /** The content of `model_index.json`. */
  readonly index: JsonObject;
  /**
   * Opens one component.
   *
   * @throws {WeightsError} If it is missing, damaged or of another class.
   */
  component(
    name: ComponentName,
    options?: ComponentOptions,
  ): Promise<Component>;
  /**
   * Reads a JSON file.
   *
   * @param relativePath Names separated by `/`, such as `scheduler/scheduler_config.json`.
   * @throws {MissingFileError} If there is no such file.
   */
  json(relativePath: string, options?: ReadOptions): Promise<JsonValue>;
  /** Reads a JSON file that may be missing. */
  optionalJson(
    relativePath: string,
    options?: ReadOptions,
  ): Promise<JsonValue | undefined>;
  /**
   * Reads a text file.
   *
   * @throws {MissingFileError} If there is no such file.
   */
  text(relativePath: string, options?: ReadOptions): Promise<string>;
  /** Reads a text file that may be missing. */
  optionalText(
    relativePath: string,
    options?: ReadOptions,
  ): Promise<string | undefined>;
  /** Closes every component opened from here; calling it twice does no harm. */
  close(): Promise<void>;
}
