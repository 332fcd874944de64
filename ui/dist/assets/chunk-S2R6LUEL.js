var r=/^[=+\-@\t\r]/;function s(t){return t.map(n=>n.map(e).join(",")+`\r
`).join("")}function e(t){let n=typeof t=="string"&&r.test(t)?"'"+t:String(t??"");return/[",\r\n]|^\s|\s$/.test(n)?`"${n.replaceAll('"','""')}"`:n}export{s as a};
