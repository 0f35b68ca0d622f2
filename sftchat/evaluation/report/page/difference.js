"use strict";
// Where a reply differs from the gold reply, line by line and character by character.
const beside = (() => {
  const CELLS = 250000; // comparisons spent on one pair of lines before they count as wholly different
  const LINES = 12; // lines of a reply beyond which they are paired in order

  // Which characters of two texts are common: longest common subsequence, after what they begin and end with alike.
  function common(left, right) {
    const inLeft = new Uint8Array(left.length);
    const inRight = new Uint8Array(right.length);
    let start = 0;
    let leftEnd = left.length;
    let rightEnd = right.length;
    while (start < leftEnd && start < rightEnd && left[start] === right[start]) inLeft[start] = inRight[start++] = 1;
    while (leftEnd > start && rightEnd > start && left[leftEnd - 1] === right[rightEnd - 1]) inLeft[--leftEnd] = inRight[--rightEnd] = 1;
    const height = leftEnd - start;
    const width = rightEnd - start;
    if (height * width && height * width <= CELLS) {
      const stride = width + 1;
      const best = new Uint16Array((height + 1) * stride);
      for (let i = height - 1; i >= 0; i--)
        for (let j = width - 1; j >= 0; j--)
          best[i * stride + j] =
            left[start + i] === right[start + j]
              ? best[(i + 1) * stride + j + 1] + 1
              : Math.max(best[(i + 1) * stride + j], best[i * stride + j + 1]);
      for (let i = 0, j = 0; i < height && j < width; )
        if (left[start + i] === right[start + j]) inLeft[start + i++] = inRight[start + j++] = 1;
        else if (best[(i + 1) * stride + j] >= best[i * stride + j + 1]) i++;
        else j++;
    }
    return [inLeft, inRight];
  }

  const same = (mask) => mask.reduce((sum, bit) => sum + bit, 0);

  // Lines of a reply beside those of the gold reply, in whatever order: equal lines belong together, then the most similar ones.
  function beside(gold, reply) {
    const wanted = gold.split("\n").map((text) => ({ letters: Array.from(text), text, mask: null }));
    const given = reply.split("\n").map((text) => ({ letters: Array.from(text), text, mask: null }));
    for (const line of given) {
      const twin = wanted.find((other) => !other.mask && other.text === line.text);
      if (twin) twin.mask = line.mask = new Uint8Array(line.letters.length).fill(1);
    }
    const open = wanted.filter((line) => !line.mask);
    const exact = given.length <= LINES && open.length <= LINES;
    for (const line of given.filter((line) => !line.mask)) {
      let partner = null;
      let masks = null;
      for (const other of exact ? open : open.slice(0, 1)) {
        if (other.mask) continue;
        const found = common(other.letters, line.letters);
        if (!masks || same(found[0]) > same(masks[0])) [partner, masks] = [other, found];
      }
      if (partner && same(masks[0]) * 3 >= Math.max(partner.letters.length, line.letters.length)) {
        [partner.mask, line.mask] = masks;
        open.splice(open.indexOf(partner), 1);
      } else line.mask = new Uint8Array(line.letters.length);
    }
    for (const line of open) line.mask ??= new Uint8Array(line.letters.length);
    return [wanted, given];
  }

  return beside;
})();
