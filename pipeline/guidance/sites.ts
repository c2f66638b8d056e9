/** Which attention sites of a UNet a method looks at: sets with a name, or paths. */
import {
  type AttentionSite,
  attentionSites,
  type UnetConfig,
} from "../unet_config.ts";

/**
 * Sets of sites by structure; numbers are those of SD1.5's 16 cross-attention sites (methods' codes
 * name them so) at 64, 32, 16, 8, 16, 32, 64 cells a side.
 *
 * - `middle_and_first_up`: 6 to 9, the middle and the first block on the way up that attends.
 * - `first_up_only`: 6 and 7, the middle and that block's first transformer.
 * - `first_up`: 7 to 9, that block.
 * - `grid_of_first_up`: 4, 5, 7, 8, 9, all of that block's grid (16x16 at 512x512).
 * - `last_down_to_second_up`: 4 to 12.
 * - `middle_to_second_up`: 6 to 12.
 */
export const SITE_SETS = [
  "middle_and_first_up",
  "first_up_only",
  "first_up",
  "grid_of_first_up",
  "last_down_to_second_up",
  "middle_to_second_up",
] as const;

/** A name of `SITE_SETS`. */
export type SiteSet = typeof SITE_SETS[number];

/** A set, or a list of diffusers' paths; that of a transformer stands for all of its sites. */
export type SiteChoice = SiteSet | readonly string[];

/**
 * The sites of a choice in the order of execution, so that the tape may end at the last.
 *
 * @throws {RangeError} If a listed site is not one of the UNet's.
 */
export function chosenSites(
  config: UnetConfig,
  choice: SiteChoice,
  kind: AttentionSite["kind"] = "cross",
): AttentionSite[] {
  const all = attentionSites(config).filter((site) => site.kind === kind);
  if (typeof choice === "string") return all.filter(inSet(all, choice));
  const named = (name: string) => ({ id }: AttentionSite): boolean =>
    id === name || id.startsWith(`${name}.`);
  for (const name of choice) {
    if (!all.some(named(name))) {
      throw new RangeError(
        `Cannot guide ${name}: it must be one of ${
          all.map((site) => site.id).join(", ")
        }`,
      );
    }
  }
  return all.filter((site) => choice.some((name) => named(name)(site)));
}

/**
 * `chosenSites` for a method that averages their maps.
 *
 * @throws {RangeError} If a listed site is not one of the UNet's, or two have different grids.
 */
export function sitesOfOneGrid(
  config: UnetConfig,
  choice: SiteChoice,
): AttentionSite[] {
  const sites = chosenSites(config, choice);
  const other = sites.find(({ level }) => level !== sites[0]!.level);
  if (other === undefined) return sites;
  throw new RangeError(
    `Cannot average attention: sites must have one grid: current ones are those of ${
      sites[0]!.id
    } and ${other.id}`,
  );
}

/** The self-attention sites of the blocks whose cross-attention a choice names. */
export function besideOf(
  config: UnetConfig,
  choice: SiteChoice,
): AttentionSite[] {
  const blockOf = (id: string): string => id.slice(0, id.lastIndexOf("."));
  const blocks = chosenSites(config, choice).map(({ id }) => blockOf(id));
  return attentionSites(config).filter(({ id, kind }) =>
    kind === "self" && blocks.includes(blockOf(id))
  );
}

/** Sites with what belongs to them, in the order of execution. */
export function inOrder<T>(
  config: UnetConfig,
  entries: readonly (readonly [site: string, value: T])[],
): Map<string, T> {
  const order = attentionSites(config).map(({ id }) => id);
  return new Map(
    entries.toSorted(([a], [b]) => order.indexOf(a) - order.indexOf(b)),
  );
}

/** The ids of `chosenSites`, cross-attention. */
export function guidedSites(
  config: UnetConfig,
  choice: SiteChoice,
): string[] {
  return chosenSites(config, choice).map((site) => site.id);
}

/** Middle and first up block; of SDXL's 30 in that block only those of its first transformer. */
export function defaultSites(
  { added }: UnetConfig,
): "middle_and_first_up" | "first_up_only" {
  return added ? "first_up_only" : "middle_and_first_up";
}

function inSet(
  all: readonly AttentionSite[],
  set: SiteSet,
): (site: AttentionSite) => boolean {
  const stages = (part: string): string[] => [
    ...new Set(all.map(({ stage }) => stage).filter((s) => s.startsWith(part))),
  ];
  const lastDown = stages("down_blocks").at(-1);
  const [firstUp, secondUp] = stages("up_blocks");
  const level = all.find(({ stage }) => stage === firstUp)?.level;
  switch (set) {
    case "middle_and_first_up":
      return ({ stage }) => stage === "mid_block" || stage === firstUp;
    case "first_up_only":
      return ({ id, stage }) =>
        stage === "mid_block" || id.startsWith(`${firstUp}.attentions.0.`);
    case "first_up":
      return ({ stage }) => stage === firstUp;
    case "grid_of_first_up":
      return (site) => site.level === level;
    case "middle_to_second_up":
    case "last_down_to_second_up": {
      const wanted: (string | undefined)[] = ["mid_block", firstUp, secondUp];
      if (set === "last_down_to_second_up") wanted.push(lastDown);
      return ({ stage }) => wanted.includes(stage);
    }
  }
}
