"""Data: Chinese phrasings in the grammar of `draft`; for each form those for training, then those held out."""

from __future__ import annotations

PHRASINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # identity
    "opener": (
        ("", "你好！", "您好，", "嗨，", "早上好！", "打扰一下，", "问一下，", "在吗？"),
        ("晚上好！", "有个小问题，", "冒昧问一句，", ""),
    ),
    "closer": (
        ("", "一句话就行。", "简单[说说|回答]就好。", "我有点好奇。", "我想知道。"),
        ("请长话短说。", "几个字就够了。", ""),
    ),
    "who": (
        ("你是谁？", "[请|简单]介绍一下你自己[。|吧。]", "能不能介绍一下你自己？", "[告诉我|说说]你是谁[。|吧。]", "我在和谁说话[？|呢？]", "你到底是谁[？|呀？]"),
        ("你是哪一位？", "跟我聊天的是谁？", "用一句话介绍你自己。"),
    ),
    "name": (
        ("你叫什么[名字|]？", "你的名字是什么？", "[我|大家]该怎么称呼你？", "你有名字吗？", "[告诉我|说说]你的名字[。|吧。]"),
        ("怎么叫你才好？", "能知道你的名字吗？", "你姓甚名谁？"),
    ),
    "maker": (
        ("是谁[做|开发|创造|制作]了你？", "谁[开发|创造|制作]的你？", "你是谁[做|开发|制作]的？", "你的[作者|开发者|制作者]是谁？", "[告诉我|说说]是谁做了你[。|吧。]"),
        ("你出自谁手？", "你背后的人是谁？", "谁把你造出来的？"),
    ),
    "nature": (
        ("你是[人|真人|活人]吗？", "我是在和[人|真人]聊天吗？", "你是[人|真人]还是[机器|程序|机器人]？", "你[究竟|到底]是不是[人|真人]？"),
        ("屏幕那头是真人吗？", "你有血有肉吗？", "跟我说话的是人类吗？"),
    ),
    # arithmetic
    "only_number": (("只回答数字。", "请只写数字。", "直接给出数字。", "只要数字，不要别的。"), ("除了数字什么也不要写。", "回复里只能有一个数。")),
    "sum": (
        ("{a} + {b} = ？", "{a} 加 {b} 等于多少？", "计算：{a} + {b}", "{a} 加上 {b} 是多少？", "求 {a} 与 {b} 的和。", "{a} + {b} 等于几？", "算一算 {a} 加 {b}。"),
        ("把 {a} 和 {b} 加起来得多少？", "{a} 与 {b} 合起来是多少？", "在 {a} 上再添 {b}，结果是几？"),
    ),
    "difference": (
        ("{a} - {b} = ？", "{a} 减 {b} 等于多少？", "计算：{a} - {b}", "{a} 减去 {b} 是多少？", "求 {a} 与 {b} 的差。", "{a} - {b} 等于几？", "算一算 {a} 减 {b}。"),
        ("从 {a} 里去掉 {b} 还剩多少？", "{a} 比 {b} 多多少？", "{a} 拿走 {b} 之后是几？"),
    ),
    "product": (
        ("{a} × {b} = ？", "{a} 乘 {b} 等于多少？", "计算：{a} × {b}", "{a} 乘以 {b} 是多少？", "求 {a} 与 {b} 的积。", "{a} × {b} 等于几？", "算一算 {a} 乘 {b}。"),
        ("{a} 和 {b} 相乘得多少？", "{b} 的 {a} 倍是多少？", "{a} 个 {b} 相加的结果是几？"),
    ),
    "story_sum": (
        (
            "{name}有 {a} {measure}{thing}，又得到 {b} {measure}，现在有几{measure}{thing}？",
            "{name}上午买了 {a} {measure}{thing}，下午又买了 {b} {measure}，一共买了几{measure}？",
            "{name}星期一得到 {a} {measure}{thing}，星期二又得到 {b} {measure}，两天共得到几{measure}？",
            "桌上有 {a} {measure}{thing}，盒子里有 {b} {measure}，一共有几{measure}{thing}？",
            "{name}有 {a} {measure}{thing}，{other}有 {b} {measure}，两人一共有几{measure}？",
        ),
        ("{other}送给{name} {b} {measure}{thing}，{name}原来有 {a} {measure}，如今有几{measure}？", "上层放着 {a} {measure}{thing}，下层放着 {b} {measure}，两层合计几{measure}？"),
    ),
    "story_difference": (
        (
            "{name}有 {a} {measure}{thing}，送给{other} {b} {measure}，还剩几{measure}？",
            "盒子里有 {a} {measure}{thing}，{name}拿走了 {b} {measure}，盒子里还有几{measure}？",
            "{name}有 {a} {measure}{thing}，{other}有 {b} {measure}，{name}比{other}多几{measure}？",
            "{name}买了 {a} {measure}{thing}，弄丢了 {b} {measure}，还有几{measure}{thing}？",
        ),
        ("{name}的 {a} {measure}{thing}卖掉了 {b} {measure}，余下几{measure}？", "{name}需要 {a} {measure}{thing}，手上已有 {b} {measure}，还缺几{measure}？"),
    ),
    "story_product": (
        (
            "有 {a} 个盒子，每个盒子里有 {b} {measure}{thing}，一共有几{measure}{thing}？",
            "{name}买了 {a} 袋{thing}，每袋 {b} {measure}，一共买了几{measure}？",
            "{a} 个小朋友每人有 {b} {measure}{thing}，一共有几{measure}？",
        ),
        ("{name}每天得到 {b} {measure}{thing}，{a} 天共得到几{measure}？", "{a} 个盘子里各放 {b} {measure}{thing}，合计几{measure}？"),
    ),
    # counting
    "letters": (
        ("单词 {word} 有几个字母？", "数一数 {word} 有多少个字母。", "英文单词“{word}”由几个字母组成？", "“{word}”这个单词有多少个字母？"),
        ("拼写 {word} 要用几个字母？", "请说出单词 {word} 的字母个数。"),
    ),
    "letter": (
        ("单词 {word} 里有几个字母 {letter}？", "数一数 {word} 中字母 {letter} 出现了几次。", "“{word}”里字母“{letter}”出现几次？"),
        ("拼写 {word} 时要写几次字母 {letter}？", "字母 {letter} 在 {word} 中共有几个？"),
    ),
    "items": (
        ("下面一共列出了几样东西：{items}？", "数一数这里有几项：{items}。", "{items}，一共有几个词？", "这个清单里有几项？{items}"),
        ("我写下了{items}，总共是几项？", "清单如下：{items}。它的项数是多少？"),
    ),
    "characters": (
        ("“{phrase}”有几个字？", "数一数“{phrase}”一共有多少个字。", "“{phrase}”这句话有几个汉字？", "请问“{phrase}”由几个字组成？"),
        ("写下“{phrase}”要写几个字？", "“{phrase}”的字数是多少？"),
    ),
    # ordering
    "ascending": (
        ("把这些数从小到大排列：{items}", "请按从小到大的顺序排列：{items}", "将{items}从小到大排序。", "按升序排列这些数字：{items}"),
        ("先写最小的，最后写最大的：{items}", "由小至大写出这些数：{items}"),
    ),
    "descending": (
        ("把这些数从大到小排列：{items}", "请按从大到小的顺序排列：{items}", "将{items}从大到小排序。", "按降序排列这些数字：{items}"),
        ("先写最大的，最后写最小的：{items}", "由大至小写出这些数：{items}"),
    ),
    "alphabetical": (
        ("把这些单词按字母顺序排列：{items}", "请按字母表顺序排列：{items}", "将这些英文单词从 A 到 Z 排序：{items}", "按首字母先后排列：{items}"),
        ("字典里这些单词谁先谁后？依次写出：{items}", "依照英文字典的次序写出：{items}"),
    ),
    "days": (
        ("把这几天按一周的先后排列，从星期一开始：{items}", "请从星期一到星期日排序：{items}", "以星期一为一周的第一天，按顺序排列：{items}"),
        ("一周从星期一算起，依次写出这几天：{items}", "这几天在一周里谁先谁后（星期一最先）？依次写出：{items}"),
    ),
    "months": (
        ("把这些月份按一年的先后排列：{items}", "请从一月到十二月排序：{items}", "按时间顺序排列这些月份：{items}"),
        ("一年之中这些月份谁先谁后？依次写出：{items}", "依照月历的次序写出：{items}"),
    ),
    "day_after": (
        ("{start}之后第 {n} 天是星期几？", "{start}再过 {n} 天是星期几？", "今天是{start}，{n} 天后是星期几？"),
        ("从{start}往后数 {n} 天，是星期几？", "{start}加 {n} 天，落在星期几？"),
    ),
    "day_before": (
        ("{start}之前第 {n} 天是星期几？", "{start}的 {n} 天前是星期几？", "今天是{start}，{n} 天前是星期几？"),
        ("从{start}往前数 {n} 天，是星期几？", "{start}减 {n} 天，落在星期几？"),
    ),
    "month_after": (
        ("{start}之后第 {n} 个月是几月？", "{start}再过 {n} 个月是几月？", "现在是{start}，{n} 个月后是几月？"),
        ("从{start}往后数 {n} 个月，是几月？", "{start}加 {n} 个月，落在几月？"),
    ),
    "month_before": (
        ("{start}之前第 {n} 个月是几月？", "{start}的 {n} 个月前是几月？", "现在是{start}，{n} 个月前是几月？"),
        ("从{start}往前数 {n} 个月，是几月？", "{start}减 {n} 个月，落在几月？"),
    ),
    # rewriting
    "upper": (
        ("把 {text} 改成大写字母。", "请用大写字母写出：{text}", "转换成大写：{text}", "将下面的英文全部大写：{text}"),
        ("让每个字母都变成大写：{text}", "写成全大写的样子：{text}"),
    ),
    "lower": (
        ("把 {text} 改成小写字母。", "请用小写字母写出：{text}", "转换成小写：{text}", "将下面的英文全部小写：{text}"),
        ("让每个字母都变成小写：{text}", "写成全小写的样子：{text}"),
    ),
    "reverse": (
        ("把下面各项的顺序倒过来：{items}", "请倒序列出：{items}", "将这个清单从后往前写一遍：{items}", "颠倒顺序：{items}"),
        ("最后一项写在最前，第一项写在最后：{items}", "从末尾念到开头：{items}"),
    ),
    "replace": (
        ("把“{old}”换成“{new}”：{text}", "将句中的“{old}”改为“{new}”：{text}", "请用“{new}”代替“{old}”：{text}", "把下面句子里的“{old}”替换成“{new}”：{text}"),
        ("凡是“{old}”都写作“{new}”：{text}", "让“{new}”取代“{old}”的位置：{text}"),
    ),
    "first": (
        ("只保留前 {n} 个字：{text}", "缩短为前 {n} 个字：{text}", "写出这句话的前 {n} 个字：{text}", "从第 {n} 个字后面截断：{text}"),
        ("第 {n} 个字以后的都删掉：{text}", "重复开头的 {n} 个字，不要更多：{text}"),
    ),
    "prefix": (
        ("在这句话前面加上“{label}”：{text}", "请以“{label}”开头重写：{text}", "给下面的句子加上前缀“{label}”：{text}", "开头加“{label}”：{text}"),
        ("先写“{label}”，再写这句话：{text}", "让这句话由“{label}”起头：{text}"),
    ),
    # format
    "json": (
        ("用 JSON 回答，键为{keys}：{text}", "请转换成 JSON 对象，键是{keys}。{text}", "写成 JSON，以{keys}为键：{text}", "提取{keys}，输出 JSON：{text}"),
        ("{text}请给我一个 JSON 对象，它的键是{keys}。", "把这些信息放进 JSON 的{keys}里：{text}"),
    ),
    "age_city": (
        ("{name}今年 {age} 岁，住在{city}。", "{name}住在{city}，今年 {age} 岁。", "住在{city}的{name}今年 {age} 岁。"),
        ("{name}是{city}人，年龄 {age} 岁。", "{age} 岁的{name}家在{city}。"),
    ),
    "bullets": (
        ("写成项目符号列表，每行一项，以“- ”开头：{items}", "用“- ”列出下面各项，每行一项：{items}", "整理成 {n} 行的列表，每行以“- ”开头：{items}"),
        ("一项一行，行首写“- ”：{items}", "给我 {n} 行，行行以“- ”起头：{items}"),
    ),
    "numbered": (
        ("写成编号列表（1.、2.、……），每行一项：{items}", "用编号列出下面各项，每行一项，格式如“1. ”：{items}", "整理成 {n} 行的编号列表，格式如“1. ”：{items}"),
        ("一项一行，从“1. ”开始编号：{items}", "给我 {n} 行带编号的清单，第一行以“1. ”开头：{items}"),
    ),
    "one_word": (
        ("{items}，哪一个是{category}？只回答一个词。", "下面哪个是{category}：{items}？请只用一个词回答。", "从{items}中选出{category}，只写这个词。"),
        ("{items}里只有一个是{category}，回复那个词就行，别的不写。", "在{items}之中找出{category}。答案必须是一个词。"),
    ),
    "tags": (
        ("把“{word}”写在 <{tag}> 和 </{tag}> 之间。", "请把“{word}”放进标签 <{tag}></{tag}> 里，不要写别的。", "用 <{tag}> 和 </{tag}> 括住“{word}”作为回答。"),
        ("让 <{tag}> 和 </{tag}> 包住“{word}”。", "整个回复就是夹在 <{tag}> 与 </{tag}> 中间的“{word}”。"),
    ),
    # reference
    "tell_name": (
        ("[你好，|]我叫{name}。", "[你好，|]我的名字是{name}。", "[你可以|请]叫我{name}。", "我是{name}。"),
        ("大家都喊我{name}。", "认识一下，{name}就是我。"),
    ),
    "tell_number": (
        ("[请|]记住数字 {number}。", "[请|]记一下这个数：{number}。", "我的幸运数字是 {number}。", "我心里想的数是 {number}。"),
        ("替我记着 {number} 这个数。", "今天的号码是 {number}。"),
    ),
    "tell_colour": (
        ("我最喜欢的颜色是{colour}。", "所有颜色里我最爱{colour}。", "我最喜欢{colour}了。"),
        ("要说颜色，我偏爱{colour}。", "没有哪种颜色比{colour}更让我中意。"),
    ),
    "tell_two": (
        ("我的{first}是{colour}的，{second}是{another}的。", "我有{colour}的{first}和{another}的{second}。", "我的{first}是{colour}，我的{second}是{another}。"),
        ("{first}我选了{colour}，{second}我选了{another}。",),
    ),
    "answer_name": (("你好，{name}！", "很高兴认识你，{name}！", "欢迎你，{name}！"), ("{name}，幸会！",)),
    "answer_number": (("好的，我记住了。", "记下了。", "好的。"), ("已经记好了。",)),
    "answer_colour": (("这个颜色很好看。", "好的，我知道了。", "很不错的颜色！"), ("这颜色真美。",)),
    "answer_two": (("好的，我知道了。", "记下了。", "明白了。"), ("原来如此。",)),
    "filler": (
        ("今天天气不错。", "我中午吃了面条。", "今天有点累。", "我待会儿要去散步。"),
        ("早上的公交车晚点了。", "昨晚我睡得很好。"),
    ),
    "answer_filler": (("原来是这样。", "谢谢你告诉我。", "好的。"), ("嗯，我在听。",)),
    "ask_name": (
        ("我叫什么名字？", "你还记得我的名字吗？", "我刚才说我叫什么？", "我是谁？"),
        ("说说我该怎么称呼。", "我报的是哪个名字？"),
    ),
    "ask_number": (
        ("我刚才说的数字是多少？", "那个数是多少？", "我提到的数字是几？", "再说一遍那个数字。"),
        ("你从我这里听到了哪个数？", "复述我给的数字。"),
    ),
    "ask_colour": (
        ("我最喜欢什么颜色？", "我最喜欢的颜色是什么？", "你还记得我最喜欢哪种颜色吗？"),
        ("我说过我偏爱哪种颜色？", "说出我中意的颜色。"),
    ),
    "ask_two": (
        ("我的{thing}是什么颜色？", "你还记得我{thing}的颜色吗？", "我的{thing}是哪种颜色的？"),
        ("说出我那{thing}的颜色。", "至于{thing}，我的是什么颜色？"),
    ),
}  # fmt: skip
