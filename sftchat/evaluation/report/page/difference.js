"use strict";
// Compares a reply with the gold reply, line by line and character by character.
const compareLines = (() => {
  const MAX_COMPARISONS = 250000; // of characters of one pair of lines; larger pairs have only their common start and end marked
  const MAX_LINES = 12; // of a reply; the lines of longer replies are paired in order, not by similarity

  // Returns a mask of each text: 1 for the characters of their common start, common end and, in between, longest common subsequence.
  function commonCharacters(left, right) {
    const leftMask = new Uint8Array(left.length);
    const rightMask = new Uint8Array(right.length);
    let start = 0;
    let leftEnd = left.length;
    let rightEnd = right.length;
    while (start < leftEnd && start < rightEnd && left[start] === right[start]) leftMask[start] = rightMask[start++] = 1;
    while (leftEnd > start && rightEnd > start && left[leftEnd - 1] === right[rightEnd - 1]) leftMask[--leftEnd] = rightMask[--rightEnd] = 1;
    const height = leftEnd - start;
    const width = rightEnd - start;
    if (height * width && height * width <= MAX_COMPARISONS) {
      // lengths[i * stride + j]: length of the longest common subsequence of left from start + i and right from start + j
      const stride = width + 1;
      const lengths = new Uint16Array((height + 1) * stride);
      for (let i = height - 1; i >= 0; i--)
        for (let j = width - 1; j >= 0; j--)
          lengths[i * stride + j] =
            left[start + i] === right[start + j]
              ? lengths[(i + 1) * stride + j + 1] + 1
              : Math.max(lengths[(i + 1) * stride + j], lengths[i * stride + j + 1]);
      for (let i = 0, j = 0; i < height && j < width; )
        if (left[start + i] === right[start + j]) leftMask[start + i++] = rightMask[start + j++] = 1;
        else if (lengths[(i + 1) * stride + j] >= lengths[i * stride + j + 1]) i++;
        else j++;
    }
    return [leftMask, rightMask];
  }

  const countMarked = (mask) => mask.reduce((sum, bit) => sum + bit, 0);
  const splitLines = (text) => text.split("\n").map((line) => ({ letters: Array.from(line), text: line, mask: null }));

  // Pairs the lines of two texts, in whatever order: equal lines first, then the most similar ones. Returns the lines of both, with masks.
  function compareLines(gold, reply) {
    const goldLines = splitLines(gold);
    const replyLines = splitLines(reply);
    for (const line of replyLines) {
      const equal = goldLines.find((other) => !other.mask && other.text === line.text);
      if (equal) equal.mask = line.mask = new Uint8Array(line.letters.length).fill(1);
    }
    const unpaired = goldLines.filter((line) => !line.mask);
    const bySimilarity = replyLines.length <= MAX_LINES && unpaired.length <= MAX_LINES;
    for (const line of replyLines.filter((line) => !line.mask)) {
      let partner = null;
      let masks = null;
      for (const other of bySimilarity ? unpaired : unpaired.slice(0, 1)) {
        const otherMasks = commonCharacters(other.letters, line.letters);
        if (!masks || countMarked(otherMasks[0]) > countMarked(masks[0])) [partner, masks] = [other, otherMasks];
      }
      // at least a third of the longer line must be common
      if (partner && countMarked(masks[0]) * 3 >= Math.max(partner.letters.length, line.letters.length)) {
        [partner.mask, line.mask] = masks;
        unpaired.splice(unpaired.indexOf(partner), 1);
      } else line.mask = new Uint8Array(line.letters.length);
    }
    for (const line of unpaired) line.mask = new Uint8Array(line.letters.length);
    return [goldLines, replyLines];
  }

  return compareLines;
})();
