export interface Progress {
  /** 0 to 1 */
  progress: number
  step: string
}

interface Stage {
  /** How its first line begins */
  opens: RegExp
  step: string
  from: number
  to: number
  /** Lines that tell of one package; with their count the stage advances */
  counts?: RegExp
  /** How many such lines a package has */
  each?: number
}

// Shares of the time that a build took when measured.
const STAGES: Stage[] = [
  { opens: /^I: running apt-get update/, step: 'Reading package lists', from: 0.01, to: 0.06 },
  { opens: /^I: downloading/, step: 'Downloading packages', from: 0.06, to: 0.15, counts: /^Get:/, each: 1 },
  { opens: /^I: extracting/, step: 'Unpacking the base system', from: 0.15, to: 0.22 },
  {
    opens: /^I: installing essential/,
    step: 'Installing the base system',
    from: 0.22,
    to: 0.5,
    counts: /^(Unpacking|Setting up) /,
    each: 2,
  },
  {
    opens: /^I: installing remaining/,
    step: 'Installing packages',
    from: 0.5,
    to: 0.82,
    counts: /^(Get:|Unpacking |Setting up )/,
    each: 3,
  },
  { opens: /^I: cleaning/, step: 'Cleaning up', from: 0.82, to: 0.84 },
  { opens: /^paws: setup/, step: "Running the template's setup", from: 0.84, to: 0.85 },
  { opens: /^paws: clean/, step: 'Cleaning up', from: 0.85, to: 0.86 },
  { opens: /^paws: image/, step: 'Making the image', from: 0.86, to: 0.94 },
]

/** Follows a build by the lines it prints. Progress never goes back. */
export function followProgress(report: (progress: Progress) => void): (line: string) => void {
  let stage: Stage | undefined
  let packages = 0
  let counted = 0
  let last = 0
  return (line) => {
    const opened = STAGES.find(({ opens }) => opens.test(line))
    if (opened) {
      stage = opened
      counted = 0
    }
    packages = Number(/(\d+) newly installed/.exec(line)?.[1] ?? packages)
    if (!stage) return
    if (stage.counts?.test(line)) counted++
    else if (!opened) return
    const share = packages && stage.each ? Math.min(1, counted / (packages * stage.each)) : 0
    last = Math.max(last, stage.from + share * (stage.to - stage.from))
    report({ progress: last, step: stage.step })
  }
}
