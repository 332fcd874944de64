package e2e
import ("testing";"os";"github.com/chromedp/chromedp";"time")
func TestDev(t *testing.T){
 u:=os.Getenv("U"); p:=openPage(t)
 p.do("open",chromedp.Navigate(u+"/"),visible("input[name=token]")); p.audit("setup"); 
 p.do("setup",fill("input[name=token]","tok"),fill("input[name=password]","correct horse battery"),fill("input[name=repeat]","correct horse battery")); p.shot("01-setup")
 p.do("submit",click("button[type=submit]"),visible("nav.side"),visible(".checklist"));p.do("w",chromedp.Sleep(2500*time.Millisecond)); p.audit("empty overview"); p.shot("02-empty")
 p.do("vpool",click(`//a[.="Create vPool"]`),visible("dialog input[name=name]"),fill("dialog input[name=name]","default"),fill("dialog input[name=path]","relative"),click(`//dialog//button[.="Create"]`),visible(".error")); p.audit("vpool dialog"); p.shot("03-vpool")
 p.do("vpool ok",fill("dialog input[name=path]","/srv/x"),click(`//dialog//button[.="Create"]`),visible(`//h1[.="default"]`)); p.audit("vpool"); p.shot("04-vpool")
 p.do("vdisk",click(`//button[.="Create vDisk"]`),visible("dialog input[name=name]"),fill("dialog input[name=name]","db-01"));p.audit("create");p.shot("05-create")
 p.do("create",click(`//dialog//button[.="Create"]`),visible("[data-copy=iscsiadm]"));p.audit("result");p.shot("06-result")
 p.do("arrive",visible(`//dialog//b[starts-with(.,"Connected")]`));p.shot("07-arrived")
 p.do("open vdisk",click(`//dialog//button[.="Open db-01"]`),visible(`//h1[.="db-01"]`),chromedp.Sleep(2500*time.Millisecond));p.audit("vdisk");p.shot("08-vdisk")
 p.do("list",click(`//nav//a[@href="/vdisks"]`),visible("tbody tr"));p.audit("vdisks");p.shot("09-vdisks")
 p.do("iscsi",click(`//nav//a[@href="/iscsi"]`),visible("tbody tr"));p.audit("iscsi");p.shot("10-iscsi")
 p.do("users",click(`//nav//a[@href="/users"]`),visible("tbody tr"));p.audit("users");p.shot("11-users")
 p.do("tokens",click(`//nav//a[@href="/tokens"]`),visible(".empty"));p.audit("tokens");p.shot("12-tokens")
 p.do("overview",click(`//nav//a[@href="/"]`),visible(`.uplot`),chromedp.Sleep(3*time.Second));p.audit("overview");p.shot("13-overview")
 p.do("dark",click(`button[popovertarget]`),visible("#user-menu"));p.shot("14-menu");p.audit("menu")
 p.do("dark",chromedp.Evaluate[chromedp.Void](`document.querySelector("input[value=dark]").click()`),click(`button[popovertarget]`),chromedp.Sleep(300*time.Millisecond));p.audit("dark");p.shot("15-dark")
 p.do("phone",chromedp.EmulateViewport(390,844),chromedp.Sleep(400*time.Millisecond));p.audit("phone");p.shot("16-phone")
 p.do("phone2",click(`//nav//a[@href="/vdisks"]`),visible("tbody tr"));p.audit("phone vdisks");p.shot("17-phone-vdisks")
 p.noConsoleErrors()
}
